// A Scorer over the runtime: float32 arithmetic on whatever weights the checkpoint holds.
#pragma once

#include <memory>
#include <vector>

#include "eval/scorer.h"
#include "runtime/decoder.h"

namespace crumb::eval {

class RuntimeScorer : public Scorer {
 public:
  explicit RuntimeScorer(std::unique_ptr<runtime::Decoder> decoder) : decoder_(std::move(decoder)) {}
  int64_t vocab_size() const override { return decoder_->spec().vocab_size; }
  int64_t context_length() const override { return decoder_->spec().context_length; }
  void begin(std::span<const ScoreRequest> requests) override;
  void score(std::span<const ScorePiece> pieces, const RowSink& row) override;

 private:
  std::unique_ptr<runtime::Decoder> decoder_;
  std::vector<ScoreRequest> requests_;
  std::vector<std::unique_ptr<runtime::SequenceState>> states_;  // of the requests; kept from batch to batch
};

}  // namespace crumb::eval
