#include "eval/runtime_scorer.h"

#include <utility>

namespace crumb::eval {

void RuntimeScorer::begin(std::span<const ScoreRequest> requests) {
  requests_.assign(requests.begin(), requests.end());
  while (states_.size() < requests_.size()) states_.push_back(decoder_->new_state());
  std::vector<runtime::SequenceInput> inputs;
  for (size_t i = 0; i < requests_.size(); ++i) {
    states_[i]->clear();
    const auto before = requests_[i].context.first(requests_[i].context.size() - 1);  // its last token predicts
    if (!before.empty()) inputs.push_back({states_[i].get(), before});
  }
  // One row of logits each is computed and dropped, the others are never made.
  if (!inputs.empty())
    decoder_->forward(inputs, runtime::LogitsFor::last, [](int64_t, int64_t, std::span<const float>) {});
}

void RuntimeScorer::score(std::span<const ScorePiece> pieces, const RowSink& row) {
  std::vector<std::vector<tokenizer::TokenId>> tokens;  // of each piece: those before the ones that are predicted
  std::vector<runtime::SequenceInput> inputs;
  tokens.reserve(pieces.size());
  for (const ScorePiece& piece : pieces) {
    const ScoreRequest& request = requests_[static_cast<size_t>(piece.request)];
    auto& of_piece = tokens.emplace_back();
    for (int64_t i = piece.first - 1; i < piece.first + piece.count - 1; ++i)
      of_piece.push_back(i < 0 ? request.context.back() : request.continuation[static_cast<size_t>(i)]);
    inputs.push_back({states_[static_cast<size_t>(piece.request)].get(), of_piece});
  }
  decoder_->forward(inputs, runtime::LogitsFor::all, [&](int64_t input, int64_t place, std::span<const float> logits) {
    const int64_t request = pieces[static_cast<size_t>(input)].request;
    const auto given = static_cast<int64_t>(requests_[static_cast<size_t>(request)].context.size());
    row(request, place - (given - 1), logits);
  });
}

}  // namespace crumb::eval
