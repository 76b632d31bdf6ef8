#include "runtime/generate.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "core/common/error.h"

namespace crumb::runtime {
namespace {

/// A place in the batch.
struct Place {
  int64_t request = -1;  // -1: free
  std::unique_ptr<SequenceState> state;
  std::vector<TokenId> next;  // tokens the model has not seen yet: the prompt, later the last token
  std::vector<TokenId> text;  // all tokens so far
};

class Batch {
 public:
  Batch(Decoder& decoder, const std::vector<GenerateRequest>& requests, const SamplingOptions& options,
        const std::vector<TokenId>& end_tokens, int64_t batch, const std::function<bool(int64_t, TokenId)>& on_token)
      : decoder_(decoder),
        requests_(requests),
        options_(options),
        end_tokens_(end_tokens),
        on_token_(on_token),
        results_(requests.size()) {
    const auto waiting = static_cast<int64_t>(requests.size());
    places_.resize(static_cast<size_t>(std::clamp<int64_t>(waiting, 1, std::max<int64_t>(1, batch))));
  }

  std::vector<GenerateResult> run(const std::atomic<bool>* stop) {
    while (stop == nullptr || !*stop) {
      fill_places();
      if (!step()) break;
    }
    return std::move(results_);
  }

 private:
  void fill_places() {
    for (auto& place : places_) {
      while (place.request < 0 && waiting_ < requests_.size()) {
        const auto& request = requests_[waiting_];
        if (request.max_tokens > 0) start(place, static_cast<int64_t>(waiting_));
        ++waiting_;
      }
    }
  }

  void start(Place& place, int64_t index) {
    const auto& prompt = requests_[static_cast<size_t>(index)].prompt;
    CRUMB_CHECK(!prompt.empty(), "request {}: the prompt has no tokens", index);
    if (place.state == nullptr) place.state = decoder_.new_state();
    place.state->clear();
    place.request = index;
    place.next = prompt;
    place.text = prompt;
  }

  /// One token for every place that is taken; false when there is none.
  bool step() {
    std::vector<SequenceInput> inputs;
    std::vector<Place*> taken;
    for (auto& place : places_) {
      if (place.request < 0) continue;
      inputs.push_back({place.state.get(), place.next});
      taken.push_back(&place);
    }
    if (taken.empty()) return false;
    std::vector<TokenId> tokens(taken.size());
    decoder_.forward(inputs, LogitsFor::last, [&](int64_t sequence, int64_t, std::span<const float> logits) {
      const auto at = static_cast<size_t>(sequence);
      const auto request = static_cast<size_t>(taken[at]->request);
      tokens[at] =
          sample(logits, options_, requests_[request].stream, results_[request].tokens.size(), taken[at]->text);
    });
    for (size_t i = 0; i < taken.size(); ++i) take(*taken[i], tokens[i]);
    return true;
  }

  void take(Place& place, TokenId token) {
    auto& result = results_[static_cast<size_t>(place.request)];
    if (std::find(end_tokens_.begin(), end_tokens_.end(), token) != end_tokens_.end()) {
      result.stopped = true;
      place.request = -1;
      return;
    }
    result.tokens.push_back(token);
    const bool is_ended = on_token_ && !on_token_(place.request, token);
    place.next.assign(1, token);
    place.text.push_back(token);
    const auto wanted = requests_[static_cast<size_t>(place.request)].max_tokens;
    const bool full = place.state->length() >= decoder_.spec().context_length;
    const bool done = static_cast<int64_t>(result.tokens.size()) >= wanted;
    result.context_full = full && !done && !is_ended;
    if (full || done || is_ended) place.request = -1;
  }

  Decoder& decoder_;
  const std::vector<GenerateRequest>& requests_;
  const SamplingOptions& options_;
  const std::vector<TokenId>& end_tokens_;
  const std::function<bool(int64_t, TokenId)>& on_token_;
  std::vector<GenerateResult> results_;
  std::vector<Place> places_;
  size_t waiting_ = 0;  // first request not started
};

}  // namespace

std::vector<GenerateResult> generate(Decoder& decoder, const std::vector<GenerateRequest>& requests,
                                     const SamplingOptions& options, const std::vector<TokenId>& end_tokens,
                                     int64_t batch, const std::function<bool(int64_t, TokenId)>& on_token,
                                     const std::atomic<bool>* stop) {
  return Batch(decoder, requests, options, end_tokens, batch, on_token).run(stop);
}

}  // namespace crumb::runtime
