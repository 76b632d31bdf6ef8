#include "runtime/sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_set>

#include "core/common/error.h"
#include "core/common/finite.h"
#include "core/common/rng.h"

namespace crumb::runtime {
namespace {

bool more_likely(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

/// By the bits of floats, whose maximum compilers make of vectors: every token comes through here.
std::span<const float>::iterator first_largest(std::span<const float> values) {
  int32_t largest = std::numeric_limits<int32_t>::min();
  const auto in_order = [](int32_t bits) {
    return bits ^ (bits >> 31 & 0x7fffffff);
  };  // of negative numbers: turned round
  for (const float x : values) largest = std::max(largest, in_order(std::bit_cast<int32_t>(x)));
  return std::ranges::find(values, std::bit_cast<float>(in_order(largest)));
}

}  // namespace

void penalize_repetition(std::span<float> logits, std::span<const TokenId> text, double penalty) {
  for (const TokenId id : std::unordered_set<TokenId>(text.begin(), text.end())) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) continue;
    float& logit = logits[static_cast<size_t>(id)];
    logit = static_cast<float>(logit > 0 ? logit / penalty : logit * penalty);
  }
}

void keep_top_k(std::vector<Candidate>& candidates, int64_t top_k) {
  if (top_k <= 0 || top_k >= static_cast<int64_t>(candidates.size())) return;
  std::nth_element(candidates.begin(), candidates.begin() + top_k, candidates.end(), more_likely);
  candidates.resize(static_cast<size_t>(top_k));
}

void keep_top_p(std::vector<Candidate>& candidates, double top_p) {
  if (top_p >= 1.0) return;
  const double total = total_weight(candidates);
  // Those below this weight hold less than 1 - top_p together, so none of them is needed; saves sorting them.
  const double least = total * (1.0 - top_p) / static_cast<double>(candidates.size());
  std::erase_if(candidates, [&](const Candidate& c) { return c.weight < least; });
  std::sort(candidates.begin(), candidates.end(), more_likely);
  double sum = 0.0;
  size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || sum < top_p * total)) sum += candidates[kept++].weight;
  candidates.resize(kept);
}

void keep_min_p(std::vector<Candidate>& candidates, double min_p) {
  double most = 0.0;
  for (const Candidate& c : candidates) most = std::max(most, c.weight);
  std::erase_if(candidates, [&](const Candidate& c) { return c.weight < min_p * most; });
}

std::vector<Candidate> candidates(std::span<const float> logits, const SamplingOptions& options,
                                  std::span<const TokenId> text) {
  if (options.vocab_size > 0 && options.vocab_size < static_cast<int64_t>(logits.size()))
    logits = logits.first(static_cast<size_t>(options.vocab_size));
  if (!are_finite(logits)) run_error("the model's logits are not finite");
  std::vector<float> penalized;
  if (options.repetition_penalty != 1.0) {
    penalized.assign(logits.begin(), logits.end());
    penalize_repetition(penalized, text, options.repetition_penalty);
    logits = penalized;
  }
  const auto best = first_largest(logits);
  if (options.temperature <= 0.0) return {{static_cast<TokenId>(best - logits.begin()), 1.0}};
  std::vector<Candidate> out;
  out.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((static_cast<double>(logits[i]) - *best) / options.temperature);
    out.push_back({static_cast<TokenId>(i), weight});
  }
  keep_top_k(out, options.top_k);
  keep_top_p(out, options.top_p);
  if (options.min_p > 0.0) keep_min_p(out, options.min_p);
  // The order must not depend on how they were selected.
  if (!std::ranges::is_sorted(out, {}, &Candidate::id)) std::ranges::sort(out, {}, &Candidate::id);
  return out;
}

double total_weight(const std::vector<Candidate>& choices) {
  return std::accumulate(choices.begin(), choices.end(), 0.0,
                         [](double sum, const Candidate& c) { return sum + c.weight; });
}

double uniform_of(const SamplingOptions& options, uint64_t stream, uint64_t position, Draw draw) {
  constexpr int kPositionBits = 62;
  return Rng(options.seed, stream).uniform(static_cast<uint64_t>(draw) << kPositionBits | position);
}

TokenId sample(std::span<const float> logits, const SamplingOptions& options, uint64_t stream, uint64_t position,
               std::span<const TokenId> text) {
  return draw(candidates(logits, options, text), uniform_of(options, stream, position, Draw::sample));
}

TokenId draw(const std::vector<Candidate>& choices, double uniform) {
  CRUMB_ASSERT(!choices.empty());
  if (choices.size() == 1) return choices.front().id;
  double left = uniform * total_weight(choices);
  for (const auto& candidate : choices) {
    left -= candidate.weight;
    if (left < 0.0) return candidate.id;
  }
  return std::max_element(choices.begin(), choices.end(),
                          [](const auto& a, const auto& b) { return more_likely(b, a); })
      ->id;  // rounding used up the last share
}

}  // namespace crumb::runtime
