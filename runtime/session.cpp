#include "runtime/session.h"

#include <algorithm>
#include <utility>

#include "core/common/error.h"
#include "core/common/progress.h"
#include "runtime/prompt_cache.h"

namespace crumb::runtime {
namespace {

constexpr size_t kTokensPerStep = 512;  // of a prompt, between two looks at `stop`

}  // namespace

Continuation Session::go_on(const ContinueRequest& request, const SamplingOptions& options,
                            const std::function<bool(TokenId)>& on_token, const std::atomic<bool>* stop) {
  const auto& prompt = request.prompt;
  const int64_t context = decoder_.spec().context_length;
  CRUMB_CHECK(!prompt.empty(), "the prompt has no tokens");
  CRUMB_CHECK(static_cast<int64_t>(prompt.size()) < context, "a prompt of {} tokens, the model holds {}", prompt.size(),
              context);
  Continuation out;
  // The last token is always computed: its logits are needed.
  const auto last = prompt.end() - 1;
  const auto apart = std::mismatch(prompt.begin(), last, seen_.begin(), seen_.end()).first;
  out.known_tokens = apart - prompt.begin();
  const Stopwatch watch;
  state_->truncate(out.known_tokens);
  seen_.resize(static_cast<size_t>(out.known_tokens));
  state_->reserve(static_cast<int64_t>(prompt.size()));  // before hours of work, not after
  if (!prefill(std::span(prompt).subspan(seen_.size()), stop)) {
    out.end = Continuation::End::stopped;
    out.prefill_seconds = watch.seconds();
    return out;
  }
  out.prefill_seconds = watch.seconds();
  while (static_cast<int64_t>(out.tokens.size()) < request.max_tokens) {
    if (stop != nullptr && *stop) {
      out.end = Continuation::End::stopped;
      break;
    }
    const TokenId token = sample(logits_, options, request.stream, out.tokens.size(), seen_);
    if (std::find(request.end_tokens.begin(), request.end_tokens.end(), token) != request.end_tokens.end()) {
      out.end = Continuation::End::end_token;
      break;
    }
    out.tokens.push_back(token);
    if (on_token && !on_token(token)) {
      out.end = Continuation::End::stopped;
      break;
    }
    if (static_cast<int64_t>(out.tokens.size()) == request.max_tokens) break;
    if (state_->length() >= context) {  // the last token needs no place of its own
      out.end = Continuation::End::context;
      break;
    }
    forward({&token, 1});
  }
  out.decode_seconds = watch.seconds() - out.prefill_seconds;
  return out;
}

void Session::save(const Path& path, const std::string& model, int64_t length) {
  const auto count = std::min(seen_.size(), static_cast<size_t>(length));
  save_prompt_cache(path, *state_, std::span(seen_).first(count), model);
}

void Session::load(const Path& path, const std::string& model) {
  auto state = decoder_.new_state();
  seen_ = load_prompt_cache(path, decoder_, *state, model);
  state_ = std::move(state);
}

/// False where `stop` ended it.
bool Session::prefill(std::span<const TokenId> tokens, const std::atomic<bool>* stop) {
  while (!tokens.empty()) {
    if (stop != nullptr && *stop) return false;
    const size_t count = std::min(tokens.size(), kTokensPerStep);
    forward(tokens.first(count));
    tokens = tokens.subspan(count);
  }
  return true;
}

void Session::forward(std::span<const TokenId> tokens) {
  const SequenceInput input{state_.get(), tokens};
  decoder_.forward({&input, 1}, LogitsFor::last, [this](int64_t, int64_t, std::span<const float> logits) {
    logits_.assign(logits.begin(), logits.end());
  });
  seen_.insert(seen_.end(), tokens.begin(), tokens.end());
}

}  // namespace crumb::runtime
