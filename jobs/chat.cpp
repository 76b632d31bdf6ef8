#include "jobs/chat.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

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

Chat::Speaker::Speaker(const NamedModel& named, RunningModel running, runtime::Draft* draft)
    : name(named.name),
      model(std::move(running)),
      chat_template(*model.tokenizer, named.path.string()),
      session(*model.decoder, draft),
      end_tokens(chat_template.end_tokens()) {}

Chat::Chat(const ChatJob& job) : job_(job), loading_(loading_with(job.threads)) {
  runtime::StopStrings{job.stops};  // refuses what is none before anything is asked
  if (job_.system) job_.system = text::checked_text(*job_.system, "--system");
  check_caches(job_.prompt_cache, job_.weight_cache);
  CRUMB_CHECK(!job_.models.empty(), "chat: give a model");
  require_names_apart(job_.models);
  const auto listed = std::ranges::find(job_.models, job_.draft.model.string(), &NamedModel::name);
  if (listed != job_.models.end()) job_.draft.model = listed->path;
  draft_ = load_draft(job_.draft, job_.precision, loading_);
  for (const auto& named : job_.models) {
    auto model = load_model(named.path, job_.precision, loading_, speakers_.empty() ? job_.weight_cache : Path());
    const bool is_drafted = draft_ && !is_same(draft_.model, model);
    if (is_drafted) check_draft(draft_.model, model);
    speakers_.push_back(std::make_unique<Speaker>(named, std::move(model), is_drafted ? draft_.draft.get() : nullptr));
  }
  speaker_ = speakers_.front().get();
  if (!job_.prompt_cache.empty() && is_there(job_.prompt_cache))
    speaker_->session.load(job_.prompt_cache, cache_identity(speaker_->model));
  reset();
}

void Chat::choose(const std::string& name) {
  const auto found = std::ranges::find(speakers_, name, [](const auto& speaker) { return speaker->name; });
  if (found == speakers_.end()) {
    std::vector<std::string> names;
    for (const auto& named : job_.models) names.push_back(named.name);
    user_error("no model is called \"{}\"; there are {}", name, fmt::join(names, ", "));
  }
  speaker_ = found->get();
}

double Chat::load_seconds() const {
  double seconds = draft_.model.load_seconds;
  for (const auto& speaker : speakers_) seconds += speaker->model.load_seconds;
  return seconds;
}

std::vector<std::string> Chat::held() const {
  std::vector<std::string> lines;
  for (const auto& speaker : speakers_) {
    for (const auto& line : speaker->model.held())
      lines.push_back(speakers_.size() == 1 ? line : speaker->name + ": " + line);
  }
  return lines;
}

std::optional<int64_t> Chat::shared_bytes() const {
  if (speakers_.size() == 1 && !draft_) return std::nullopt;
  return loading_.pool->shared_bytes();
}

void Chat::save_cache() {
  const auto& first = *speakers_.front();
  const auto length = static_cast<int64_t>(first.session.seen().size());
  if (!job_.prompt_cache.empty() && length > 0)
    first.session.save(job_.prompt_cache, cache_identity(first.model), length);
}

void Chat::reset() {
  messages_.clear();
  if (job_.system) messages_.push_back({"system", *job_.system});
}

/// The conversation with one more message, up to where the answer begins.
std::vector<tokenizer::TokenId> Chat::prompt_with(const std::string& text) const {
  auto messages = messages_;
  messages.push_back({"user", text});
  auto prompt = speaker_->chat_template.encode(
      messages, {.add_generation_prompt = true, .enable_thinking = job_.enable_thinking});
  const auto size = static_cast<int64_t>(prompt.size()), left = context_length() - size;
  CRUMB_CHECK(size > 0, "{}: its chat template writes nothing for this conversation",
              speaker_->model.checkpoint->path().string());
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
  tokenizer::StreamingDecoder stream(*speaker_->model.tokenizer);
  // The decoder leaves out a space that begins a text; an answer begins in the middle of one.
  for (const auto id : prompt) stream.push(id);
  runtime::StopStrings stops(job_.stops);
  ChatAnswer out;
  const auto add = [&](const std::string& piece) {
    out.text += piece;
    show(piece);
  };
  const auto result = speaker_->session.go_on(
      {prompt, job_.max_tokens, speaker_->end_tokens, answers_++},
      sampling_options(job_.sampling, speaker_->model, kChatTemperature),
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
  if (job_.reports_draft) out.draft = report_draft(result, speaker_->session, stop);
  messages_.push_back({"user", message});
  messages_.push_back({"assistant", out.text});
  return out;
}

void Chat::save(const Path& path, bool force) const {
  require_apart(path, {job_.weight_cache, job_.prompt_cache});
  require_new_file(path, force);
  nlohmann::ordered_json line = {{"messages", nlohmann::ordered_json::array()}};
  for (const auto& message : messages_) line["messages"].push_back(jinja::to_json(message));
  write_text(path, dump_json(line) + "\n", Overwrite{force});
}

}  // namespace crumb::jobs
