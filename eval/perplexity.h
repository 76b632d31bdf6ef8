// Perplexity, KL divergence and top-1 agreement of a model against a baseline, with standard errors.
//
// All sums are in double precision. Standard errors take windows as clusters: with S_w the sum of a quantity over the
// n_w scored tokens of window w, N = sum n_w and W windows, the mean m = sum S_w / N has
//   se(m)^2 = W / (W - 1) * sum_w (S_w - m n_w)^2 / N^2                    (linearised ratio estimator)
// Perplexities, their ratio and their difference follow by the delta method; the last two from per-window differences
// of model and baseline (paired), which is why they are known far better than either perplexity. The errors say how
// much another sample of windows of such text would change the number; neighbouring windows of one document are taken
// as independent.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "core/common/thread_pool.h"
#include "eval/scorer.h"

namespace crumb::eval {

/// One predicted token. Without a baseline only `nll` is set.
struct TokenScore {
  double nll = 0;  // -log P(token), nats
  double baseline_nll = 0;
  double kl = 0;          // KL(baseline || model) of the whole distribution, nats
  bool same_top = false;  // both put the same token first (the lowest id among equals)
};

/// Compares two rows of logits; `baseline` may be empty. Not finite logits give not finite scores.
TokenScore score_row(std::span<const float> model, std::span<const float> baseline, tokenizer::TokenId target);

/// Scores one window: `tokens` are its inputs and one more. Returns, for each model, tokens.size() - 1 - first_scored
/// scores. `baseline` may be null; it runs once, however many models there are. Logits are held for one chunk of
/// positions at a time, about 64 MB for the model at work and 64 MB for the baseline.
std::vector<std::vector<TokenScore>> score_window(std::span<Scorer* const> models, Scorer* baseline,
                                                  std::span<const tokenizer::TokenId> tokens, int64_t first_scored,
                                                  const ParallelFor& parallel_for);

/// Sums over the scored tokens of one window.
struct WindowSums {
  int64_t tokens = 0;
  double nll = 0, baseline_nll = 0, kl = 0, same_top = 0;
  void add(const TokenScore& score);
};

/// standard_error is empty when fewer than two windows were scored.
struct Estimate {
  double value = 0;
  std::optional<double> standard_error;
};

/// The model beside the baseline.
struct Comparison {
  Estimate baseline_perplexity;
  Estimate perplexity_change;    // ratio of the perplexities - 1; paired
  Estimate perplexity_increase;  // their difference; paired
  Estimate kl;                   // mean KL(baseline || model), nats a token
  Estimate top1;                 // share of tokens where both have the same first choice
};

struct Scores {
  int64_t tokens = 0, windows = 0;
  Estimate cross_entropy;  // mean nll, nats a token
  Estimate perplexity;
  std::optional<Comparison> comparison;
};

/// Windows without tokens are left out.
Scores summarize(std::span<const WindowSums> windows, bool with_baseline);

}  // namespace crumb::eval
