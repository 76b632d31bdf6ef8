// What a model says about texts: the one interface evaluation needs.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "core/tokenizer/tokenizer.h"

namespace crumb::runtime {
class Decoder;
}

namespace crumb::eval {

/// A continuation that is judged given what stands before it: the scored part of a window, or an answer to a question.
/// Neither part is empty.
struct ScoreRequest {
  std::span<const tokenizer::TokenId> context, continuation;
  int64_t tokens() const { return static_cast<int64_t>(context.size() + continuation.size()); }
};

/// Positions [first, first + count) of the continuation of one request.
struct ScorePiece {
  int64_t request = 0, first = 0, count = 0;
  bool operator==(const ScorePiece&) const = default;
};

class Scorer {
 public:
  /// The logits that predict continuation[position] of a request: vocab_size floats that are valid during the call
  /// only.
  using RowSink = std::function<void(int64_t request, int64_t position, std::span<const float> logits)>;

  virtual ~Scorer() = default;
  virtual int64_t vocab_size() const = 0;
  /// Tokens a request may have.
  virtual int64_t context_length() const = 0;
  /// What runs the model, to write texts with; null where there is none.
  virtual runtime::Decoder* decoder() { return nullptr; }
  /// Rows are logarithms of probabilities that were rounded, for score_log_probabilities() in place of score_row().
  virtual bool gives_log_probabilities() const { return false; }
  /// Takes in the contexts of a batch of requests, which live until the next begin(), and forgets those before.
  virtual void begin(std::span<const ScoreRequest> requests) = 0;
  /// Computes the rows of these pieces, at most one of each request, and gives them in order. The pieces of a request
  /// come one after the other, from its first position on; so two models can be compared without all logits of either
  /// in memory.
  virtual void score(std::span<const ScorePiece> pieces, const RowSink& row) = 0;
};

}  // namespace crumb::eval
