// Generation of many texts at once; session.h goes on with one.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "runtime/decoder.h"
#include "runtime/sampling.h"

namespace crumb::runtime {

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
/// as tokens come (may be null); a request for which it says false, or whose context is full, stops there.
std::vector<GenerateResult> generate(Decoder& decoder, const std::vector<GenerateRequest>& requests,
                                     const SamplingOptions& options, const std::vector<TokenId>& end_tokens,
                                     int64_t batch, const std::function<bool(int64_t request, TokenId token)>& on_token,
                                     const std::atomic<bool>* stop = nullptr);

}  // namespace crumb::runtime
