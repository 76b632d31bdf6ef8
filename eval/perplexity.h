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

#include <span>
#include <vector>

#include "eval/measure.h"
#include "eval/score.h"

namespace crumb::eval {

/// Sums over the scored tokens of one window.
struct WindowSums {
  int64_t tokens = 0, bytes = 0, words = 0;  // bytes, words: of text that the tokens stand for
  double nll = 0, baseline_nll = 0, kl = 0, same_top = 0, shared_top5 = 0, delta_p = 0, squared_delta_p = 0;
  void add(const TokenScore& score, int64_t bytes_of_token = 0);
  WindowSums& operator+=(const WindowSums& other);
};

/// cross_entropy (mean nll, nats a token), perplexity and, where bytes were counted, bits_per_byte (nll / ln 2 over
/// bytes: comparable between vocabularies); with a baseline also baseline_perplexity, perplexity_change
/// (ratio of the perplexities - 1; paired), perplexity_increase (their difference; paired), kl (mean KL(baseline ||
/// model), nats a token), top1 (share of tokens where both have the same first choice), top5 (mean share of the
/// baseline's five first choices that are among the model's five), delta_p (mean of P(token) of the model less that of
/// the baseline) and delta_p_rms (root of its mean square). Windows without tokens are left out.
///
/// `divergences`: the KL of each token; of them kl_p50, kl_p90, kl_p95, kl_p99, kl_p99_9 and kl_max, without errors.
Scores summarize(std::span<const WindowSums> windows, bool with_baseline, std::vector<float> divergences = {});

/// The value below which a share of the sorted values lies, linear between neighbours (numpy.quantile's default). One
/// value at least.
double quantile(std::span<const float> sorted, double share);
double quantile(std::span<const double> sorted, double share);

}  // namespace crumb::eval
