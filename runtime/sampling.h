// How the next token is picked from the model's logits. In the order of transformers' generate(): repetition penalty,
// temperature, top-k, top-p, min-p; then one draw from what is left.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace crumb::runtime {

using tokenizer::TokenId;

struct SamplingOptions {
  double temperature = 0.0;         // 0: greedy
  double top_p = 1.0;               // smallest set of tokens with at least this probability
  int64_t top_k = 0;                // 0: all
  double min_p = 0.0;               // those at least this share as likely as the likeliest
  double repetition_penalty = 1.0;  // above 1: tokens of the text so far become less likely
  uint64_t seed = 0;
  int64_t vocab_size = 0;  // ids from here on are never picked: rows that only pad the embedding; 0: all may be
};

struct Candidate {
  TokenId id;
  double weight;  // probability, not normalised
};

/// Keskar et al. 2019, arXiv:1909.05858, section 4.1, as transformers has it: the logit of every token of `text`, once
/// however often it is there, is divided by `penalty` where it is positive, else multiplied.
void penalize_repetition(std::span<float> logits, std::span<const TokenId> text, double penalty);
/// The top_k heaviest; of those equally heavy, the first ids. 0: all.
void keep_top_k(std::vector<Candidate>& candidates, int64_t top_k);
/// The fewest of the heaviest that hold at least the share top_p of the weight; one always.
void keep_top_p(std::vector<Candidate>& candidates, double top_p);
/// Those of at least min_p times the largest weight.
void keep_min_p(std::vector<Candidate>& candidates, double min_p);

/// What sample() draws from, in order of ids; the likeliest token alone where it is greedy. `text`: what the repetition
/// penalty applies to, prompt included. RunError: logits that are not finite.
std::vector<Candidate> candidates(std::span<const float> logits, const SamplingOptions& options,
                                  std::span<const TokenId> text = {});

/// In proportion to the weights; `uniform` in [0, 1). The one there is where it is one.
TokenId draw(const std::vector<Candidate>& choices, double uniform);
double total_weight(const std::vector<Candidate>& choices);

/// What a random number is for: each has numbers of its own at every position.
enum class Draw : uint64_t { sample, propose, accept, replace };
double uniform_of(const SamplingOptions& options, uint64_t stream, uint64_t position, Draw draw);

/// Picks from logits; the choice is a pure function of (options, text, stream, position).
TokenId sample(std::span<const float> logits, const SamplingOptions& options, uint64_t stream, uint64_t position,
               std::span<const TokenId> text = {});

}  // namespace crumb::runtime
