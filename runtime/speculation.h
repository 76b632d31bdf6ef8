// Lossless speculation: a faster model drafts tokens, the model asked for verifies them in one pass. Leviathan et al.
// 2023, arXiv:2211.17192, algorithm 1; Chen et al. 2023, arXiv:2302.01318. Both distributions are those that sample()
// draws from, after penalty, temperature and filters, so that what comes is distributed as the model's own samples; at
// temperature 0 it is the model's own tokens, one for one (a token's logits do not depend on what else is in a pass).
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/computed_text.h"
#include "runtime/sampling.h"

namespace crumb::runtime {

/// A token and what it was drawn from.
struct Proposal {
  TokenId token;
  std::vector<Candidate> choices;
};

/// The proposed token with probability min(1, p / q), p its share of `wanted` and q of what it was drawn from; else one
/// drawn from what p has above q. Distributed as `wanted` whatever was drafted. Two uniform numbers in [0, 1).
TokenId accept_or_replace(const std::vector<Candidate>& wanted, const Proposal& proposal, double accept,
                          double replace);

/// Of one continuation.
struct SpeculationCounts {
  int64_t passes = 0, proposed = 0, accepted = 0;  // passes of the model behind the first token
  double draft_seconds = 0;

  /// Share of proposals.
  double acceptance() const;
  /// Tokens that came of a pass, the model's own one included.
  double tokens_per_pass() const;
};

/// The model that drafts, and how many tokens at once: as transformers' heuristic has it, two more after a pass that
/// accepted all, one fewer after another, from kFirstProposals; as llama.cpp has it, none behind a place where the
/// likeliest token has less than kLeastConfidence (which is known before one is drawn, so distributions stay).
class Draft {
 public:
  static constexpr int64_t kMostProposals = 8, kFirstProposals = 4;
  static constexpr double kLeastConfidence = 0.3;

  /// At most `most` at once.
  explicit Draft(Decoder& decoder, int64_t most = kMostProposals) : text_(decoder), most_(most) { begin(); }

  /// What was learned of another text is forgotten.
  void begin();
  /// Up to `room` tokens behind a text; the first is token `position` of its continuation. Of texts before it uses what
  /// is alike. `stop`: may end it with fewer.
  std::vector<Proposal> propose(std::span<const TokenId> text, int64_t room, const SamplingOptions& options,
                                uint64_t stream, uint64_t position, const std::atomic<bool>* stop);
  void learn(int64_t proposed, int64_t accepted);

 private:
  ComputedText text_;
  int64_t most_, next_ = 0;
};

}  // namespace crumb::runtime
