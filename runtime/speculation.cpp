#include "runtime/speculation.h"

#include <algorithm>
#include <cmath>

#include "core/common/error.h"

namespace crumb::runtime {
namespace {

/// Share of a token, 0 where it is not among the choices, which are in order of ids.
double share_of(TokenId token, const std::vector<Candidate>& choices, double total) {
  const auto found = std::ranges::lower_bound(choices, token, {}, &Candidate::id);
  return found != choices.end() && found->id == token ? found->weight / total : 0.0;
}

/// Share of the likeliest token in what a draft says of the next one; of all its logits where it is greedy.
double confidence(std::span<const float> logits, const std::vector<Candidate>& choices) {
  constexpr float kFar = 16;  // below the best: e^-16 of a hundred thousand is nothing
  if (choices.size() > 1)
    return std::ranges::max_element(choices, {}, &Candidate::weight)->weight / total_weight(choices);
  const float best = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float x : logits) {
    if (x > best - kFar) sum += std::exp(x - best);
  }
  return 1.0 / sum;
}

}  // namespace

TokenId accept_or_replace(const std::vector<Candidate>& wanted, const Proposal& proposal, double accept,
                          double replace) {
  const double wanted_total = total_weight(wanted), drafted_total = total_weight(proposal.choices);
  const double p = share_of(proposal.token, wanted, wanted_total);
  const double q = share_of(proposal.token, proposal.choices, drafted_total);
  if (accept * q < p) return proposal.token;
  std::vector<Candidate> rest;
  for (const auto& choice : wanted) {
    const double above = choice.weight / wanted_total - share_of(choice.id, proposal.choices, drafted_total);
    if (above > 0.0) rest.push_back({choice.id, above});
  }
  return draw(rest.empty() ? wanted : rest, replace);  // empty: by rounding alone
}

double SpeculationCounts::acceptance() const {
  return static_cast<double>(accepted) / static_cast<double>(std::max<int64_t>(1, proposed));
}

double SpeculationCounts::tokens_per_pass() const {
  return 1.0 + static_cast<double>(accepted) / static_cast<double>(std::max<int64_t>(1, passes));
}

void Draft::begin() { next_ = std::min(kFirstProposals, most_); }

std::vector<Proposal> Draft::propose(std::span<const TokenId> text, int64_t room, const SamplingOptions& options,
                                     uint64_t stream, uint64_t position, const std::atomic<bool>* stop) {
  const auto count = static_cast<size_t>(std::min(next_, room));
  std::vector<Proposal> proposals;
  if (count == 0) return proposals;
  std::vector<TokenId> so_far(text.begin(), text.end());
  while (proposals.size() < count) {
    text_.go_on(so_far, stop);
    if (text_.size() < so_far.size()) return {};  // stopped
    auto choices = candidates(text_.logits(), options, so_far);
    if (confidence(text_.logits(), choices) < kLeastConfidence) break;
    const auto at = position + proposals.size();
    const TokenId token = draw(choices, uniform_of(options, stream, at, Draw::propose));
    proposals.push_back({token, std::move(choices)});
    so_far.push_back(token);
  }
  return proposals;
}

void Draft::learn(int64_t proposed, int64_t accepted) {
  next_ = accepted == proposed ? std::min(next_ + 2, most_) : std::max<int64_t>(1, next_ - 1);
}

}  // namespace crumb::runtime
