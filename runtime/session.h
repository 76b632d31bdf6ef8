// One text that grows: what the model has computed of it is kept, so that going on costs the new tokens only.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "core/common/file.h"
#include "runtime/decoder.h"
#include "runtime/sampling.h"

namespace crumb::runtime {

struct ContinueRequest {
  std::vector<TokenId> prompt;  // the whole text so far; not empty, shorter than the model's context
  int64_t max_tokens = 0;
  std::vector<TokenId> end_tokens;
  uint64_t stream = 0;  // of random numbers
};

struct Continuation {
  enum class End { length, end_token, context, stopped };
  std::vector<TokenId> tokens;  // without the end token
  End end = End::length;
  int64_t known_tokens = 0;    // of the prompt, that the model had seen before
  double prefill_seconds = 0;  // up to the first new token
  double decode_seconds = 0;   // of those behind it
};

class Session {
 public:
  explicit Session(Decoder& decoder) : decoder_(decoder), state_(decoder.new_state()) {}

  /// Goes on behind the prompt. Of an earlier call it uses what the two texts begin with alike: the tokens are those of
  /// a new session, bit for bit. `on_token`: as tokens come; false ends it. `stop`: asked between passes, also within a
  /// long prompt; null: never.
  Continuation go_on(const ContinueRequest& request, const SamplingOptions& options,
                     const std::function<bool(TokenId)>& on_token, const std::atomic<bool>* stop = nullptr);

  /// Tokens that the model has seen.
  const std::vector<TokenId>& seen() const { return seen_; }
  const SequenceState& state() const { return *state_; }
  /// The first `length` of them, with what was computed, to a file and back (prompt_cache.h). What is loaded takes the
  /// place of what was there.
  void save(const Path& path, const std::string& model, int64_t length);
  void load(const Path& path, const std::string& model);

 private:
  bool prefill(std::span<const TokenId> tokens, const std::atomic<bool>* stop);
  void forward(std::span<const TokenId> tokens);

  Decoder& decoder_;
  std::unique_ptr<SequenceState> state_;
  std::vector<TokenId> seen_;
  std::vector<float> logits_;  // behind the last token seen
};

}  // namespace crumb::runtime
