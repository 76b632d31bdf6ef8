// What a model says about a text: the one interface evaluation needs.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "core/tokenizer/tokenizer.h"

namespace crumb::eval {

class Scorer {
 public:
  /// One position's logits, vocab_size floats that are valid during the call only.
  using RowSink = std::function<void(std::span<const float> logits)>;

  virtual ~Scorer() = default;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t context_length() const = 0;
  /// Forgets all tokens: the next ones begin a window.
  virtual void restart() = 0;
  /// Appends tokens to the window and calls `row` for each of them, in order; the row of a token predicts the next one.
  /// An empty `row`: the tokens are context only. A window comes in pieces so that two models can be compared without
  /// all logits of either in memory.
  virtual void append(std::span<const tokenizer::TokenId> tokens, const RowSink& row) = 0;
};

}  // namespace crumb::eval
