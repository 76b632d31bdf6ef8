// What a decoder has computed of one text: tokens at the end of it come and go.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/common/file.h"
#include "runtime/decoder.h"

namespace crumb::runtime {

class ComputedText {
 public:
  explicit ComputedText(Decoder& decoder) : decoder_(decoder), state_(decoder.new_state()) {}

  const std::vector<TokenId>& tokens() const { return tokens_; }
  size_t size() const { return tokens_.size(); }
  const SequenceState& state() const { return *state_; }
  /// Behind the last token of go_on().
  std::span<const float> logits() const { return logits_; }

  /// Becomes `text`, not empty: what it begins with alike stays, except that the last token is always computed, for its
  /// logits. Returns how many tokens stayed. `stop`: asked between passes, null for never; what is computed is kept.
  size_t go_on(std::span<const TokenId> text, const std::atomic<bool>* stop);
  /// Adds tokens, and calls logits(i, row) for what follows each of them.
  void append(std::span<const TokenId> tokens, const std::function<void(size_t, std::span<const float>)>& logits);
  void truncate(size_t size);

  /// The first `length` tokens, with what was computed, to a file and back (prompt_cache.h). What is loaded takes the
  /// place of what was there.
  void save(const Path& path, const std::string& model, int64_t length) const;
  void load(const Path& path, const std::string& model);

 private:
  Decoder& decoder_;
  std::unique_ptr<SequenceState> state_;
  std::vector<TokenId> tokens_;
  std::vector<float> logits_;
};

}  // namespace crumb::runtime
