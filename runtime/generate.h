// Sampling and generation, one prompt or many at once.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "core/common/rng.h"
#include "runtime/decoder.h"

namespace crumb::runtime {

struct SamplingOptions {
  double temperature = 0.0;  // 0: greedy
  double top_p = 1.0;        // smallest set of tokens with at least this probability
  int64_t top_k = 0;         // 0: all
  uint64_t seed = 0;
  int64_t vocab_size = 0;  // ids from here on are never picked: rows that only pad the embedding; 0: all may be
};

/// Picks from logits; the choice is a pure function of (options, stream, position).
TokenId sample(std::span<const float> logits, const SamplingOptions& options, uint64_t stream, uint64_t position);

struct GenerateRequest {
  std::vector<TokenId> prompt;  // not empty
  int64_t max_tokens = 0;
  uint64_t stream = 0;  // separates the random numbers of requests
};

struct GenerateResult {
  std::vector<TokenId> tokens;  // without the prompt and without the end token
  bool stopped = false;         // an end token came
  bool context_full = false;    // the model's context ended it, before max_tokens
};

/// Decodes up to `batch` requests at once, filling free places with waiting ones. `on_token(request, token)` is called
/// as tokens come (may be null); a request whose context is full stops there.
std::vector<GenerateResult> generate(Decoder& decoder, const std::vector<GenerateRequest>& requests,
                                     const SamplingOptions& options, const std::vector<TokenId>& end_tokens,
                                     int64_t batch, const std::function<void(int64_t request, TokenId token)>& on_token,
                                     const std::atomic<bool>* stop = nullptr);

}  // namespace crumb::runtime
