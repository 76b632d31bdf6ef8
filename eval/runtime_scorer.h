// A Scorer over the runtime: float32 arithmetic on whatever weights the checkpoint holds.
#pragma once

#include <memory>

#include "eval/scorer.h"
#include "runtime/decoder.h"

namespace crumb::eval {

class RuntimeScorer : public Scorer {
 public:
  explicit RuntimeScorer(std::unique_ptr<runtime::Decoder> decoder);
  int64_t vocab_size() const override { return decoder_->spec().vocab_size; }
  int64_t context_length() const override { return decoder_->spec().context_length; }
  void restart() override { state_->clear(); }
  void append(std::span<const tokenizer::TokenId> tokens, const RowSink& row) override;

 private:
  std::unique_ptr<runtime::Decoder> decoder_;
  std::unique_ptr<runtime::SequenceState> state_;
};

}  // namespace crumb::eval
