// One text that grows: what the model has computed of it is kept, so that going on costs the new tokens only.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "core/common/file.h"
#include "runtime/computed_text.h"
#include "runtime/sampling.h"
#include "runtime/speculation.h"

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
  SpeculationCounts speculation;
};

class Session {
 public:
  /// `draft`: a decoder with the same vocabulary and no smaller context that drafts tokens for this one, or null. It
  /// may draft for others, too.
  explicit Session(Decoder& decoder, Draft* draft = nullptr) : decoder_(decoder), draft_(draft), text_(decoder) {}

  /// Goes on behind the prompt. Of an earlier call it uses what the two texts begin with alike: the tokens are those of
  /// a new session, bit for bit. `on_token`: as tokens come; false ends it. `stop`: asked between passes, also within a
  /// long prompt; null: never.
  /// With a draft the tokens are those without one where options are greedy; else they are distributed alike, and the
  /// same for the same seed.
  Continuation go_on(const ContinueRequest& request, const SamplingOptions& options,
                     const std::function<bool(TokenId)>& on_token, const std::atomic<bool>* stop = nullptr);

  /// Of a pass of one token, the last one once more: what a token costs without a draft. The median of a few; `stop`
  /// (null: never) ends it after the first.
  double token_seconds(const std::atomic<bool>* stop = nullptr);

  /// Tokens that the model has seen.
  const std::vector<TokenId>& seen() const { return text_.tokens(); }
  const SequenceState& state() const { return text_.state(); }
  /// As ComputedText has them.
  void save(const Path& path, const std::string& model, int64_t length) const { text_.save(path, model, length); }
  void load(const Path& path, const std::string& model) { text_.load(path, model); }

 private:
  std::vector<TokenId> next_tokens(const ContinueRequest& request, const SamplingOptions& options, int64_t room,
                                   const std::atomic<bool>* stop, Continuation& out);

  Decoder& decoder_;
  Draft* draft_;
  ComputedText text_;
};

}  // namespace crumb::runtime
