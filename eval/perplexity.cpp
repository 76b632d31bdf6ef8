#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>

#include "core/common/error.h"
#include "kernels/divergence.h"

namespace crumb::eval {
namespace {

using tokenizer::TokenId;

// Rows of logits of one chunk of positions.
class Chunk {
 public:
  Chunk(int64_t rows, int64_t vocab) : vocab_(static_cast<size_t>(vocab)), data_(static_cast<size_t>(rows) * vocab_) {}
  void fill(Scorer& scorer, std::span<const TokenId> tokens) {
    size_t row = 0;
    scorer.append(tokens, [&](std::span<const float> logits) {
      CRUMB_ASSERT(row < tokens.size() && logits.size() == vocab_);
      std::copy(logits.begin(), logits.end(), data_.begin() + static_cast<std::ptrdiff_t>(row++ * vocab_));
    });
    CRUMB_ASSERT(row == tokens.size());
  }
  std::span<const float> row(int64_t i) const {
    return data_.empty() ? std::span<const float>{} : std::span(data_).subspan(static_cast<size_t>(i) * vocab_, vocab_);
  }

 private:
  size_t vocab_;
  std::vector<float> data_;
};

// Enough rows for an efficient matrix product, few enough for the memory.
int64_t rows_per_chunk(int64_t vocab, int64_t inputs) {
  constexpr int64_t kFloats = 16 << 20;
  return std::min(inputs, std::max<int64_t>(32, kFloats / vocab));
}

// Per-window sums of one quantity as an estimate of its mean over tokens.
template <class Sum>
Estimate mean_of(std::span<const WindowSums> windows, const Sum& sum) {
  double total = 0, tokens = 0, squares = 0;
  for (const auto& w : windows) {
    total += sum(w);
    tokens += static_cast<double>(w.tokens);
  }
  const double mean = total / tokens;
  for (const auto& w : windows) {
    const double residual = sum(w) - mean * static_cast<double>(w.tokens);
    squares += residual * residual;
  }
  const auto n = static_cast<double>(windows.size());
  if (windows.size() < 2) return {mean, std::nullopt};
  return {mean, std::sqrt(n / (n - 1) * squares) / tokens};
}

// exp(x) - shift, by the delta method.
Estimate exponential(const Estimate& x, double shift = 0) {
  const double value = std::exp(x.value);
  return {value - shift, x.standard_error ? std::optional(value * *x.standard_error) : std::nullopt};
}

Comparison compare(std::span<const WindowSums> windows, double cross_entropy) {
  const Estimate baseline = mean_of(windows, [](const WindowSums& w) { return w.baseline_nll; });
  const Estimate change = mean_of(windows, [](const WindowSums& w) { return w.nll - w.baseline_nll; });
  const double p = std::exp(cross_entropy), q = std::exp(baseline.value);
  // d(p - q) = p d(log p) - q d(log q): the error of this combination of the two sums is that of the difference.
  const Estimate mixed = mean_of(windows, [&](const WindowSums& w) { return p * w.nll - q * w.baseline_nll; });
  Comparison c;
  c.baseline_perplexity = exponential(baseline);
  c.perplexity_change = exponential(change, 1.0);
  c.perplexity_increase = {p - q, mixed.standard_error};
  c.kl = mean_of(windows, [](const WindowSums& w) { return w.kl; });
  c.top1 = mean_of(windows, [](const WindowSums& w) { return w.same_top; });
  return c;
}

}  // namespace

TokenScore score_row(std::span<const float> model, std::span<const float> baseline, TokenId target) {
  const int64_t targets[] = {target};
  kernels::LogitScoreRow row;
  kernels::logit_scores(model.data(), baseline.empty() ? nullptr : baseline.data(), targets, 1,
                        static_cast<int64_t>(model.size()), &row, serial_executor());
  if (baseline.empty()) return {.nll = row.cross_entropy};
  return {.nll = row.cross_entropy,
          .baseline_nll = row.teacher_cross_entropy,
          .kl = row.kl,
          .same_top = row.student_top == row.teacher_top};
}

std::vector<std::vector<TokenScore>> score_window(std::span<Scorer* const> models, Scorer* baseline,
                                                  std::span<const TokenId> tokens, int64_t first_scored,
                                                  const ParallelFor& parallel_for) {
  const auto inputs = static_cast<int64_t>(tokens.size()) - 1;
  const int64_t vocab = models.front()->vocab_size(), rows = rows_per_chunk(vocab, inputs);
  Chunk q(rows, vocab), p(baseline != nullptr ? rows : 0, vocab);
  std::vector<std::vector<TokenScore>> scores(models.size());
  for (auto& of_model : scores) of_model.resize(static_cast<size_t>(inputs - first_scored));
  for (Scorer* model : models) model->restart();
  if (baseline != nullptr) baseline->restart();
  for (int64_t at = 0; at < inputs;) {
    const bool scored = at >= first_scored;
    const int64_t n = std::min(rows, (scored ? inputs : first_scored) - at);
    const auto piece = tokens.subspan(static_cast<size_t>(at), static_cast<size_t>(n));
    if (baseline != nullptr && scored) p.fill(*baseline, piece);
    if (baseline != nullptr && !scored) baseline->append(piece, nullptr);
    for (size_t m = 0; m < models.size(); ++m) {
      if (!scored) {
        models[m]->append(piece, nullptr);
        continue;
      }
      q.fill(*models[m], piece);
      TokenScore* out = scores[m].data() + (at - first_scored);
      parallel_for(n, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          out[i] = score_row(q.row(i), p.row(i), tokens[static_cast<size_t>(at + i + 1)]);
      });
    }
    at += n;
  }
  return scores;
}

void WindowSums::add(const TokenScore& score) {
  ++tokens;
  nll += score.nll;
  baseline_nll += score.baseline_nll;
  kl += score.kl;
  same_top += score.same_top ? 1 : 0;
}

Scores summarize(std::span<const WindowSums> windows, bool with_baseline) {
  std::vector<WindowSums> used;
  std::copy_if(windows.begin(), windows.end(), std::back_inserter(used),
               [](const WindowSums& w) { return w.tokens > 0; });
  Scores scores;
  scores.windows = static_cast<int64_t>(used.size());
  for (const auto& w : used) scores.tokens += w.tokens;
  if (used.empty()) return scores;
  scores.cross_entropy = mean_of(used, [](const WindowSums& w) { return w.nll; });
  scores.perplexity = exponential(scores.cross_entropy);
  if (with_baseline) scores.comparison = compare(used, scores.cross_entropy.value);
  return scores;
}

}  // namespace crumb::eval
