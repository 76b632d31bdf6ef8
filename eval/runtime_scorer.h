// A Scorer over the runtime: float32 arithmetic on whatever weights the checkpoint holds.
#pragma once

#include <memory>
#include <vector>

#include "eval/scorer.h"
#include "runtime/decoder.h"

namespace crumb::eval {

/// A context that several requests of a batch have is computed once, and so is what the contexts of a batch begin with
/// alike (solved examples before a question), which is also kept for the next batch. A token's logits do not depend on
/// what is computed together with it (runtime/decoder.h), so they are those of every request alone, bit for bit.
class RuntimeScorer : public Scorer {
 public:
  explicit RuntimeScorer(std::unique_ptr<runtime::Decoder> decoder) : decoder_(std::move(decoder)) {}
  int64_t vocab_size() const override { return decoder_->spec().vocab_size; }
  int64_t context_length() const override { return decoder_->spec().context_length; }
  runtime::Decoder* decoder() override { return decoder_.get(); }
  void begin(std::span<const ScoreRequest> requests) override;
  void score(std::span<const ScorePiece> pieces, const RowSink& row) override;

  /// Tokens that went through the model so far.
  int64_t computed_tokens() const { return computed_; }

 private:
  using Tokens = std::span<const tokenizer::TokenId>;
  void forward(std::span<const runtime::SequenceInput> inputs, runtime::LogitsFor which,
               const runtime::Decoder::LogitsSink& sink);
  /// Makes shared_ hold the state of `beginning`.
  void share(Tokens beginning);

  std::unique_ptr<runtime::Decoder> decoder_;
  std::vector<ScoreRequest> requests_;
  std::vector<std::unique_ptr<runtime::SequenceState>> states_;  // of the requests; kept from batch to batch
  std::unique_ptr<runtime::SequenceState> shared_;
  std::vector<tokenizer::TokenId> shared_tokens_;  // that shared_ has seen
  int64_t computed_ = 0;
};

}  // namespace crumb::eval
