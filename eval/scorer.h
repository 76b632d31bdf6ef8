// What a model says about a text: the one interface evaluation needs.
#pragma once

#include <functional>
#include <span>

#include "core/tokenizer/tokenizer.h"

namespace crumb::eval {

class Scorer {
 public:
  virtual ~Scorer() = default;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t context_length() const = 0;
  /// Calls `logits(position, row)` for every position of the window, in order; position p's row predicts token p + 1.
  virtual void score(std::span<const tokenizer::TokenId> window,
                     const std::function<void(int64_t position, std::span<const float> logits)>& logits) = 0;
};

}  // namespace crumb::eval
