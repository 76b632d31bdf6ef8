#include "runtime/session.h"

#include <algorithm>
#include <optional>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "core/common/spread.h"

namespace crumb::runtime {

Continuation Session::go_on(const ContinueRequest& request, const SamplingOptions& options,
                            const std::function<bool(TokenId)>& on_token, const std::atomic<bool>* stop) {
  using End = Continuation::End;
  const auto& prompt = request.prompt;
  const int64_t context = decoder_.spec().context_length, size = static_cast<int64_t>(prompt.size());
  CRUMB_CHECK(!prompt.empty(), "the prompt has no tokens");
  CRUMB_CHECK(size < context, "a prompt of {} tokens, the model holds {}", prompt.size(), context);
  Continuation out;
  const Stopwatch watch;
  out.known_tokens = static_cast<int64_t>(text_.go_on(prompt, stop));
  out.prefill_seconds = watch.seconds();
  if (text_.size() < prompt.size()) {
    out.end = End::stopped;
    return out;
  }
  if (draft_ != nullptr) draft_->begin();
  const int64_t room = std::min(request.max_tokens, context - size + 1);  // the last token needs no place of its own
  std::optional<End> end;
  const auto take = [&](TokenId token) {
    if (std::ranges::find(request.end_tokens, token) != request.end_tokens.end()) {
      end = End::end_token;
      return;
    }
    out.tokens.push_back(token);
    if (on_token && !on_token(token))
      end = End::stopped;
    else if (static_cast<int64_t>(out.tokens.size()) == room)
      end = room == request.max_tokens ? End::length : End::context;
  };
  if (room == 0) end = End::length;
  while (!end) {
    if (stop != nullptr && *stop) {
      end = End::stopped;
      break;
    }
    for (const TokenId token : next_tokens(request, options, room, stop, out)) {
      take(token);
      if (end) break;
    }
  }
  out.end = *end;
  text_.truncate(std::min(text_.size(), prompt.size() + out.tokens.size()));  // what was accepted behind the end
  out.decode_seconds = watch.seconds() - out.prefill_seconds;
  return out;
}

/// One token at least, at most as many as there is room for. All but the last of them have been computed.
std::vector<TokenId> Session::next_tokens(const ContinueRequest& request, const SamplingOptions& options, int64_t room,
                                          const std::atomic<bool>* stop, Continuation& out) {
  const uint64_t stream = request.stream, position = out.tokens.size();
  if (out.tokens.empty()) return {sample(text_.logits(), options, stream, 0, text_.tokens())};
  std::vector<TokenId> text = text_.tokens();
  text.push_back(out.tokens.back());
  std::vector<Proposal> proposals;
  if (draft_ != nullptr) {
    const Stopwatch watch;
    try {
      proposals = draft_->propose(text, room - static_cast<int64_t>(position) - 1, options, stream, position, stop);
    } catch (const RunError& error) {  // keys beyond float16, no memory: the text does not need it
      log_warning("the draft is left out: {}", error.what());
      draft_ = nullptr;
    }
    out.speculation.draft_seconds += watch.seconds();
  }
  const size_t known = text_.size();
  for (const auto& proposal : proposals) text.push_back(proposal.token);
  std::vector<TokenId> next;
  bool is_replaced = false;  // a proposal, so that those behind it are of another text
  text_.append(std::span(text).subspan(known), [&](size_t i, std::span<const float> logits) {
    if (is_replaced) return;
    const auto before = std::span(text).first(known + 1 + i);
    const uint64_t at = position + i;
    if (i == proposals.size()) {
      next.push_back(sample(logits, options, stream, at, before));
      return;
    }
    next.push_back(accept_or_replace(candidates(logits, options, before), proposals[i],
                                     uniform_of(options, stream, at, Draw::accept),
                                     uniform_of(options, stream, at, Draw::replace)));
    is_replaced = next.back() != proposals[i].token;
  });
  text_.truncate(known + next.size());
  if (draft_ != nullptr) {
    const auto proposed = static_cast<int64_t>(proposals.size()), accepted = static_cast<int64_t>(next.size()) - 1;
    out.speculation.passes += 1;
    out.speculation.proposed += proposed;
    out.speculation.accepted += accepted;
    if (proposed > 0) draft_->learn(proposed, accepted);
  }
  return next;
}

double Session::token_seconds(const std::atomic<bool>* stop) {
  constexpr int kPasses = 5;
  CRUMB_ASSERT(text_.size() > 0);
  const TokenId last = text_.tokens().back();
  std::vector<double> seconds;
  for (int i = 0; i < kPasses && (i == 0 || stop == nullptr || !*stop); ++i) {
    text_.truncate(text_.size() - 1);
    const Stopwatch watch;
    text_.append({&last, 1}, [](size_t, std::span<const float>) {});
    seconds.push_back(watch.seconds());
  }
  return spread_of(seconds).median;
}

}  // namespace crumb::runtime
