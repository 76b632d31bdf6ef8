#include "kernels/divergence.h"

#include <algorithm>

#include "core/common/error.h"
#include "kernels/isa/table.h"

namespace crumb::kernels {

bool needs_teacher(const LossTerms& w) { return w.kl != 0 || w.reverse_kl != 0 || w.jsd != 0 || w.cakld != 0; }

void logit_loss(float* student, float* teacher, const int64_t* targets, const float* row_weights, int64_t rows,
                int64_t vocab, const LogitLossSpec& spec, LossTerms* terms, Executor& executor, Isa isa) {
  const auto row_loss = kernel_table(isa).logit_loss;
  CRUMB_ASSERT(spec.temperature > 0 && spec.jsd_beta >= 0 && spec.jsd_beta <= 1);
  const bool compares = needs_teacher(spec.weights);
  executor.run(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      terms[r] = {};
      if (row_weights[r] == 0)
        std::fill_n(student + r * vocab, vocab, 0.0f);
      else
        row_loss(student + r * vocab, compares ? teacher + r * vocab : nullptr, targets[r], row_weights[r], vocab, spec,
                 terms + r);
    }
  });
}

void logit_scores(const float* student, const float* teacher, const int64_t* targets, int64_t rows, int64_t vocab,
                  LogitScoreRow* scores, Executor& executor, Isa isa) {
  const auto row_score = kernel_table(isa).logit_score;
  executor.run(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      row_score(student + r * vocab, teacher == nullptr ? nullptr : teacher + r * vocab, targets[r], vocab, scores + r);
    }
  });
}

}  // namespace crumb::kernels
