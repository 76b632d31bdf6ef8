#include "kernels/kl.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/isa/table.h"

namespace crumb::kernels {
void logit_loss(float* student, float* teacher, const int64_t* targets, const float* row_weights, int64_t rows,
                int64_t vocab, const LogitLossWeights& weights, LogitLossRow* losses, Executor& executor, Isa isa) {
  const auto row_loss = kernel_table(isa).logit_loss;
  executor.run(rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      row_loss(student + r * vocab, weights.kl == 0 ? nullptr : teacher + r * vocab, targets[r], row_weights[r], vocab,
               weights, losses + r);
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

namespace reference {
namespace {

std::vector<double> log_softmax(const double* x, int64_t n, double temperature) {
  const double peak = *std::max_element(x, x + n);
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += std::exp((x[i] - peak) / temperature);
  std::vector<double> out(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) out[static_cast<size_t>(i)] = (x[i] - peak) / temperature - std::log(total);
  return out;
}

}  // namespace

void logit_loss(double* student, const double* teacher, const int64_t* targets, const double* row_weights, int64_t rows,
                int64_t vocab, const LogitLossWeights& weights, LogitLossRow* losses) {
  for (int64_t r = 0; r < rows; ++r) {
    double* s = student + r * vocab;
    std::vector<double> gradient(static_cast<size_t>(vocab), 0.0);
    losses[r] = {};
    if (weights.kl != 0) {
      const auto log_p = log_softmax(teacher + r * vocab, vocab, weights.temperature),
                 log_q = log_softmax(s, vocab, weights.temperature);
      for (size_t i = 0; i < gradient.size(); ++i) {
        losses[r].kl += weights.temperature * weights.temperature * std::exp(log_p[i]) * (log_p[i] - log_q[i]);
        gradient[i] += weights.kl * weights.temperature * (std::exp(log_q[i]) - std::exp(log_p[i]));
      }
    }
    if (weights.cross_entropy != 0) {
      const auto log_q = log_softmax(s, vocab, 1.0);
      const auto target = static_cast<size_t>(targets[r]);
      losses[r].cross_entropy = -log_q[target];
      for (size_t i = 0; i < gradient.size(); ++i)
        gradient[i] += weights.cross_entropy * (std::exp(log_q[i]) - (i == target ? 1.0 : 0.0));
    }
    for (int64_t i = 0; i < vocab; ++i) s[i] = row_weights[r] * gradient[static_cast<size_t>(i)];
  }
}

}  // namespace reference

}  // namespace crumb::kernels
