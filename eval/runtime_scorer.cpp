#include "eval/runtime_scorer.h"

#include <utility>

namespace crumb::eval {

RuntimeScorer::RuntimeScorer(std::unique_ptr<runtime::Decoder> decoder)
    : decoder_(std::move(decoder)), state_(decoder_->new_state()) {}

void RuntimeScorer::append(std::span<const tokenizer::TokenId> tokens, const RowSink& row) {
  const runtime::SequenceInput input{state_.get(), tokens};
  // Context only: one row of logits is computed and dropped, the others are never made.
  const auto which = row ? runtime::LogitsFor::all : runtime::LogitsFor::last;
  decoder_->forward({&input, 1}, which, [&](int64_t, int64_t, std::span<const float> logits) {
    if (row) row(logits);
  });
}

}  // namespace crumb::eval
