#include "eval/score.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/common/error.h"
#include "kernels/divergence.h"

namespace crumb::eval {
namespace {

using tokenizer::TokenId;

// Enough rows for an efficient matrix product, few enough for the memory.
int64_t rows_at_once(int64_t vocab) {
  constexpr int64_t kFloats = 16 << 20;
  return std::max<int64_t>(32, kFloats / vocab);
}

using FirstFive = std::array<TokenId, 5>;

/// Ids of the five largest logits, in the order of their size (of equals the lowest id first); -1: there are fewer.
FirstFive first_five(std::span<const float> logits) {
  FirstFive ids;
  ids.fill(-1);
  std::array<float, 5> values;
  values.fill(-INFINITY);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > values.back() || ids.back() < 0)) continue;
    size_t place = ids.size() - 1;
    for (; place > 0 && (ids[place - 1] < 0 || logits[i] > values[place - 1]); --place) {
      ids[place] = ids[place - 1];
      values[place] = values[place - 1];
    }
    ids[place] = static_cast<TokenId>(i);
    values[place] = logits[i];
  }
  return ids;
}

double shared_top5(std::span<const float> model, std::span<const float> baseline) {
  const FirstFive a = first_five(model), b = first_five(baseline);
  const auto count = std::min(a.size(), model.size());
  const auto shared =
      std::ranges::count_if(std::span(b).first(count), [&](TokenId id) { return std::ranges::find(a, id) != a.end(); });
  return static_cast<double>(shared) / static_cast<double>(count);
}

/// The pieces of a batch, some at a time: every request goes on by the same number of positions.
class Pieces {
 public:
  explicit Pieces(std::span<const ScoreRequest> requests) {
    for (const auto& request : requests) left_.push_back(static_cast<int64_t>(request.continuation.size()));
    done_.resize(left_.size());
  }
  /// At most `rows` positions, but one at least; empty when all are done.
  std::vector<ScorePiece> next(int64_t rows) {
    const auto open = std::ranges::count_if(left_, [](int64_t n) { return n > 0; });
    const int64_t each = std::max<int64_t>(1, open > 0 ? rows / open : rows);
    std::vector<ScorePiece> pieces;
    for (size_t i = 0; i < left_.size() && rows > 0; ++i) {
      const int64_t count = std::min({left_[i], each, rows});
      if (count == 0) continue;
      pieces.push_back({static_cast<int64_t>(i), done_[i], count});
      done_[i] += count, left_[i] -= count, rows -= count;
    }
    return pieces;
  }

 private:
  std::vector<int64_t> done_, left_;
};

/// The logits of some pieces, in their order.
class Rows {
 public:
  explicit Rows(int64_t vocab) : vocab_(static_cast<size_t>(vocab)) {}
  void fill(Scorer& scorer, std::span<const ScorePiece> pieces) {
    data_.clear();
    scorer.score(pieces, [&](int64_t, int64_t, std::span<const float> logits) {
      CRUMB_ASSERT(logits.size() == vocab_);
      data_.insert(data_.end(), logits.begin(), logits.end());
    });
  }
  int64_t count() const { return static_cast<int64_t>(data_.size() / vocab_); }
  std::span<const float> row(int64_t i) const {
    return data_.empty() ? std::span<const float>{} : std::span(data_).subspan(static_cast<size_t>(i) * vocab_, vocab_);
  }

 private:
  size_t vocab_;
  std::vector<float> data_;
};

}  // namespace

TokenScore score_row(std::span<const float> model, std::span<const float> baseline, TokenId target) {
  const int64_t targets[] = {target};
  kernels::LogitScoreRow row;
  kernels::logit_scores(model.data(), baseline.empty() ? nullptr : baseline.data(), targets, 1,
                        static_cast<int64_t>(model.size()), &row, serial_executor());
  const bool is_top = row.student_top == target;
  const auto top = static_cast<TokenId>(row.student_top);
  if (baseline.empty()) return {.nll = row.cross_entropy, .is_top = is_top, .top = top};
  return {.nll = row.cross_entropy,
          .is_top = is_top,
          .baseline_nll = row.teacher_cross_entropy,
          .kl = row.kl,
          .same_top = row.student_top == row.teacher_top,
          .shared_top5 = shared_top5(model, baseline),
          .top = top,
          .baseline_top = static_cast<TokenId>(row.teacher_top)};
}

TokenScore score_log_probabilities(std::span<const float> model, std::span<const float> baseline, TokenId target) {
  TokenScore score = score_row(model, {}, target);
  const auto right = static_cast<size_t>(target);
  const double log_sum = score.nll + static_cast<double>(model[right]);
  for (size_t i = 0; i < baseline.size(); ++i) {
    const double log_p = baseline[i];
    if (log_p > -16) score.kl += std::exp(log_p) * (log_p - static_cast<double>(model[i]) + log_sum);
  }
  score.baseline_nll = -static_cast<double>(baseline[right]);
  score.baseline_top = static_cast<TokenId>(std::ranges::max_element(baseline) - baseline.begin());
  score.same_top = score.top == score.baseline_top;
  score.shared_top5 = shared_top5(model, baseline);
  return score;
}

std::vector<RequestScores> score_requests(std::span<Scorer* const> models, Scorer* baseline,
                                          std::span<const ScoreRequest> requests, const ParallelFor& parallel_for) {
  const int64_t vocab = models.front()->vocab_size();
  std::vector<RequestScores> scores(models.size(), RequestScores(requests.size()));
  for (auto& of_model : scores) {
    for (size_t i = 0; i < requests.size(); ++i) of_model[i].resize(requests[i].continuation.size());
  }
  for (Scorer* model : models) model->begin(requests);
  if (baseline != nullptr) baseline->begin(requests);
  Pieces todo(requests);
  Rows q(vocab), p(vocab);
  const bool is_rounded = baseline != nullptr && baseline->gives_log_probabilities();
  for (auto pieces = todo.next(rows_at_once(vocab)); !pieces.empty(); pieces = todo.next(rows_at_once(vocab))) {
    std::vector<std::pair<size_t, size_t>> places;  // request and position of each row
    for (const auto& piece : pieces) {
      for (int64_t i = 0; i < piece.count; ++i)
        places.emplace_back(static_cast<size_t>(piece.request), static_cast<size_t>(piece.first + i));
    }
    if (baseline != nullptr) p.fill(*baseline, pieces);
    for (size_t m = 0; m < models.size(); ++m) {
      q.fill(*models[m], pieces);
      CRUMB_ASSERT(q.count() == std::ssize(places) && (baseline == nullptr || p.count() == q.count()));
      parallel_for(q.count(), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const auto [request, position] = places[static_cast<size_t>(i)];
          const TokenId target = requests[request].continuation[position];
          scores[m][request][position] =
              is_rounded ? score_log_probabilities(q.row(i), p.row(i), target) : score_row(q.row(i), p.row(i), target);
        }
      });
    }
  }
  return scores;
}

}  // namespace crumb::eval
