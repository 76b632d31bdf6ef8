// Scores of predicted tokens, of models beside a baseline.
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "core/common/thread_pool.h"
#include "eval/scorer.h"

namespace crumb::eval {

/// One predicted token. Without a baseline only `nll`, `is_top` and `top` are set. A first choice is the lowest id
/// among equals.
struct TokenScore {
  double nll = 0;       // -log P(token), nats
  bool is_top = false;  // the model puts it first
  double baseline_nll = 0;
  double kl = 0;           // KL(baseline || model) of the whole distribution, nats
  bool same_top = false;   // both put the same token first
  double shared_top5 = 0;  // share of the baseline's five first choices that are among the model's five
  tokenizer::TokenId top = 0, baseline_top = 0;  // the first choices
  /// P(token) of the model less that of the baseline.
  double delta_p() const { return std::exp(-nll) - std::exp(-baseline_nll); }
};

/// Compares two rows of logits; `baseline` may be empty. Not finite logits give not finite scores.
TokenScore score_row(std::span<const float> model, std::span<const float> baseline, tokenizer::TokenId target);

/// The same where the baseline is what LogitsFile holds: logarithms of probabilities are taken as they are, those of
/// -16 and less as no probability, as llama-perplexity does. They do not quite add up to 1, so a KL near 0 may be
/// negative.
TokenScore score_log_probabilities(std::span<const float> model, std::span<const float> baseline,
                                   tokenizer::TokenId target);

/// scores[request][position of its continuation]
using RequestScores = std::vector<std::vector<TokenScore>>;

/// Scores a batch of requests, for each model. `baseline` may be null; it runs once, however many models there are.
/// Logits are held for some positions at a time, about 64 MB for the model at work and 64 MB for the baseline.
std::vector<RequestScores> score_requests(std::span<Scorer* const> models, Scorer* baseline,
                                          std::span<const ScoreRequest> requests, const ParallelFor& parallel_for);

}  // namespace crumb::eval
