#include "jobs/chat.h"

#include <nlohmann/json.hpp>

#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/text/text_file.h"
#include "runtime/stop_strings.h"

namespace crumb::jobs {
namespace {

constexpr double kChatTemperature = 0.7;

ChatAnswer::End end_of(const runtime::Continuation& result, const runtime::StopStrings& stops) {
  using End = runtime::Continuation::End;
  if (stops.found()) return ChatAnswer::End::stop_text;
  switch (result.end) {
    case End::end_token:
      return ChatAnswer::End::model;
    case End::length:
      return ChatAnswer::End::length;
    case End::context:
      return ChatAnswer::End::context;
    case End::stopped:
      return ChatAnswer::End::interrupted;
  }
  CRUMB_ASSERT(false);
}

}  // namespace

const char* ChatAnswer::finish_reason() const {
  switch (end) {
    case End::model:
    case End::stop_text:
      return "stop";
    case End::length:
      return "length";
    case End::context:
      return "context";
    case End::interrupted:
      return "interrupted";
  }
  CRUMB_ASSERT(false);
}

Chat::Chat(const ChatJob& job)
    : job_(job),
      model_(load_model(job.model, job.precision, job.threads)),
      template_(*model_.tokenizer, job.model.string()),
      session_(*model_.decoder),
      end_tokens_(template_.end_tokens()) {
  runtime::StopStrings{job.stops};  // refuses what is none before anything is asked
  if (job_.system) job_.system = text::checked_text(*job_.system, "--system");
  if (!job_.prompt_cache.empty()) {
    if (is_there(job_.prompt_cache))
      session_.load(job_.prompt_cache, cache_identity(model_));
    else
      require_new_file(job_.prompt_cache, false);  // not found out at the end
  }
  reset();
}

void Chat::save_cache() {
  const auto length = static_cast<int64_t>(session_.seen().size());
  if (!job_.prompt_cache.empty() && length > 0) session_.save(job_.prompt_cache, cache_identity(model_), length);
}

void Chat::reset() {
  messages_.clear();
  if (job_.system) messages_.push_back({"system", *job_.system});
}

/// The conversation with one more message, up to where the answer begins.
std::vector<tokenizer::TokenId> Chat::prompt_with(const std::string& text) const {
  auto messages = messages_;
  messages.push_back({"user", text});
  auto prompt = template_.encode(messages, {.add_generation_prompt = true, .enable_thinking = job_.enable_thinking});
  const auto size = static_cast<int64_t>(prompt.size()), left = context_length() - size;
  CRUMB_CHECK(size > 0, "{}: its chat template writes nothing for this conversation", job_.model.string());
  CRUMB_CHECK(
      left > 0,
      "the conversation with this message has {} tokens, the model holds {}: begin a new one (/reset), or send a "
      "shorter message",
      size, context_length());
  if (left < job_.max_tokens)
    log_warning(
        "the model's context of {} tokens leaves {} for the answer (--max-tokens: {}); /reset begins a new "
        "conversation",
        context_length(), left, job_.max_tokens);
  return prompt;
}

ChatAnswer Chat::say(const std::string& text, const std::function<void(const std::string&)>& show,
                     const std::atomic<bool>* stop) {
  const std::string message(text::checked_text(text, "the message"));
  const auto prompt = prompt_with(message);
  tokenizer::StreamingDecoder stream(*model_.tokenizer);
  // The decoder leaves out a space that begins a text; an answer begins in the middle of one.
  for (const auto id : prompt) stream.push(id);
  runtime::StopStrings stops(job_.stops);
  ChatAnswer out;
  const auto add = [&](const std::string& piece) {
    out.text += piece;
    show(piece);
  };
  const auto result = session_.go_on(
      {prompt, job_.max_tokens, end_tokens_, answers_++}, sampling_options(job_.sampling, model_, kChatTemperature),
      [&](tokenizer::TokenId token) {
        add(stops.push(stream.push(token)));
        return !stops.found();
      },
      stop);
  if (!stops.found()) add(stops.push(stream.finish()) + stops.finish());
  out.end = end_of(result, stops);
  out.prompt_tokens = static_cast<int64_t>(prompt.size());
  out.known_tokens = result.known_tokens;
  out.tokens = static_cast<int64_t>(result.tokens.size());
  out.prefill_seconds = result.prefill_seconds;
  out.decode_seconds = result.decode_seconds;
  messages_.push_back({"user", message});
  messages_.push_back({"assistant", out.text});
  return out;
}

void Chat::save(const Path& path, bool force) const {
  require_new_file(path, force);
  nlohmann::ordered_json line = {{"messages", nlohmann::ordered_json::array()}};
  for (const auto& message : messages_) line["messages"].push_back(jinja::to_json(message));
  write_text(path, dump_json(line) + "\n", Overwrite{force});
}

}  // namespace crumb::jobs
