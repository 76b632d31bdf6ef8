#include "eval/runtime_scorer.h"

#include <algorithm>
#include <utility>

namespace crumb::eval {
namespace {

using Tokens = std::span<const tokenizer::TokenId>;

/// Shorter beginnings cost a pass of their own and save next to nothing.
constexpr size_t kLeastShared = 32;

/// What must be known before the last token of the context, which predicts.
Tokens before(const ScoreRequest& request) { return request.context.first(request.context.size() - 1); }

size_t common_length(Tokens a, Tokens b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

/// What the contexts of several requests begin with alike.
Tokens common_beginning(std::span<const ScoreRequest> requests) {
  if (requests.size() < 2) return {};
  Tokens common = before(requests[0]);
  for (const auto& request : requests) common = common.first(common_length(common, before(request)));
  return common.size() < kLeastShared ? Tokens() : common;
}

}  // namespace

void RuntimeScorer::forward(std::span<const runtime::SequenceInput> inputs, runtime::LogitsFor which,
                            const runtime::Decoder::LogitsSink& sink) {
  for (const auto& input : inputs) computed_ += std::ssize(input.tokens);
  decoder_->forward(inputs, which, sink);
}

void RuntimeScorer::share(Tokens beginning) {
  if (shared_ == nullptr) shared_ = decoder_->new_state();
  const size_t known = common_length(beginning, shared_tokens_);
  shared_->truncate(static_cast<int64_t>(known));
  shared_tokens_.assign(beginning.begin(), beginning.end());
  if (known == beginning.size()) return;
  const runtime::SequenceInput rest{shared_.get(), beginning.subspan(known)};
  forward({&rest, 1}, runtime::LogitsFor::last, [](int64_t, int64_t, std::span<const float>) {});
}

void RuntimeScorer::begin(std::span<const ScoreRequest> requests) {
  requests_.assign(requests.begin(), requests.end());
  states_.resize(std::max(states_.size(), requests_.size()));
  const Tokens beginning = common_beginning(requests_);
  if (!beginning.empty()) share(beginning);

  std::vector<runtime::SequenceInput> inputs;
  std::vector<std::pair<size_t, size_t>> copies;  // of the state of an earlier request with the same context
  for (size_t i = 0; i < requests_.size(); ++i) {
    const Tokens context = before(requests_[i]);
    const auto same = std::find_if(requests_.begin(), requests_.begin() + static_cast<std::ptrdiff_t>(i),
                                   [&](const ScoreRequest& r) { return std::ranges::equal(before(r), context); });
    const auto earlier = static_cast<size_t>(same - requests_.begin());
    if (earlier < i && !context.empty()) {
      copies.emplace_back(earlier, i);
      continue;
    }
    if (!beginning.empty())
      states_[i] = shared_->fork();
    else if (states_[i] == nullptr)
      states_[i] = decoder_->new_state();
    else
      states_[i]->clear();
    const Tokens rest = context.subspan(beginning.size());
    if (!rest.empty()) inputs.push_back({states_[i].get(), rest});
  }
  // One row of logits each is computed and dropped, the others are never made.
  if (!inputs.empty()) forward(inputs, runtime::LogitsFor::last, [](int64_t, int64_t, std::span<const float>) {});
  for (const auto& [from, to] : copies) states_[to] = states_[from]->fork();
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
  forward(inputs, runtime::LogitsFor::all, [&](int64_t input, int64_t place, std::span<const float> logits) {
    const int64_t request = pieces[static_cast<size_t>(input)].request;
    const auto given = static_cast<int64_t>(requests_[static_cast<size_t>(request)].context.size());
    row(request, place - (given - 1), logits);
  });
}

}  // namespace crumb::eval
