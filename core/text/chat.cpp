#include "core/text/chat.h"

#include <algorithm>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/json.h"
#include "core/common/rng.h"

namespace crumb::text {
namespace {

using nlohmann::ordered_json;

bool has_value(const ordered_json& object, const char* key) { return object.contains(key) && !object[key].is_null(); }

std::string content_of(const ordered_json& message) {
  return has_value(message, "content") ? message["content"].get<std::string>() : std::string();
}

constexpr std::string_view kBlanks = " \t\n\v\f\r";

bool is_blank(std::string_view text) { return text.find_first_not_of(kBlanks) == std::string_view::npos; }

/// A letter that a text neither begins nor ends with, whatever blanks a template takes off.
std::string other_than(const std::string& content) {
  const char first = is_blank(content) ? ' ' : content[content.find_first_not_of(kBlanks)];
  const char last = is_blank(content) ? ' ' : content[content.find_last_not_of(kBlanks)];
  for (const char letter : {'x', 'y', 'z'}) {
    if (letter != first && letter != last) return {letter};
  }
  CRUMB_ASSERT(false);
}

size_t common_prefix(const std::vector<TokenId>& a, const std::vector<TokenId>& b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}
size_t common_suffix(const std::vector<TokenId>& a, const std::vector<TokenId>& b) {
  return static_cast<size_t>(std::mismatch(a.rbegin(), a.rend(), b.rbegin(), b.rend()).first - a.rbegin());
}

}  // namespace

Conversation conversation_of(const ordered_json& object, const std::string& where) {
  CRUMB_CHECK(object.is_object() && object.contains("messages"),
              "{}: no \"messages\"; expected {{\"messages\": [...]}}", where);
  CRUMB_CHECK(!has_value(object, "tools") || object["tools"].empty(),
              "{}: \"tools\" are not written into training text; leave them out", where);
  const ordered_json& messages = object["messages"];
  CRUMB_CHECK(messages.is_array() && !messages.empty(), "{}: messages must be a list of at least one message", where);
  for (size_t i = 0; i < messages.size(); ++i) {
    const ordered_json& message = messages[i];
    const std::string name = fmt::format("{}: messages[{}]", where, i);
    CRUMB_CHECK(message.is_object(), "{}: not a JSON object but {}", name, json_excerpt(message));
    CRUMB_CHECK(message.contains("role") && message["role"].is_string(), "{}: no \"role\" that is a text", name);
    CRUMB_CHECK(has_value(message, "content") || has_value(message, "tool_calls"), "{}: no \"content\"", name);
    CRUMB_CHECK(!has_value(message, "content") || message["content"].is_string(), "{}: content must be a text, not {}",
                name, json_excerpt(message["content"]));
  }
  return {messages, where};
}

ChatEncoder::ChatEncoder(const tokenizer::Tokenizer& tokenizer, const ChatFormat& format)
    : tokenizer_(tokenizer), format_(format), template_(tokenizer, format.model), end_tokens_(template_.end_tokens()) {}

uint64_t ChatEncoder::identity() const {
  uint64_t h = hash_bytes(hash_name("conversations"), tokenizer_.chat_template());
  for (const auto& role : format_.roles) h = hash_word(h, hash_name(role));
  const uint64_t thinking = format_.enable_thinking ? (*format_.enable_thinking ? 1 : 0) : 2;
  return hash_word(h, thinking);
}

std::vector<TokenId> ChatEncoder::tokens_of(const ordered_json& messages, bool prompt) const {
  return tokenizer_.encode(template_.render(
      messages,
      {.add_generation_prompt = prompt, .enable_thinking = format_.enable_thinking, .now = jinja::kRepeatableDate}));
}

/// Templates say nothing of where they write what. What changes with a message's content is found by changing it: the
/// conversation with another content agrees with this one up to the content and from its end on.
ChatEncoder::Span ChatEncoder::span_of(const ordered_json& messages, size_t index,
                                       const std::vector<TokenId>& ids) const {
  ordered_json changed = messages;
  changed[index]["content"] = other_than(content_of(messages[index]));
  const std::vector<TokenId> others = tokens_of(changed, false);
  Span span{common_prefix(ids, others), 0};
  if (span.begin == ids.size() && others.size() == ids.size()) return {};  // the template leaves the message out
  const size_t behind = std::min(common_suffix(ids, others), std::min(ids.size(), others.size()) - span.begin);
  span.end = ids.size() - behind;
  for (size_t i = span.end; i < ids.size(); ++i) {
    if (!tokenizer_.is_special(ids[i])) {
      if (is_blank(tokenizer_.token_bytes(ids[i]))) continue;
      break;  // what follows is another's turn, or a mark of this one's end that is a text
    }
    if (std::binary_search(end_tokens_.begin(), end_tokens_.end(), ids[i])) span.end = i + 1;
    break;
  }
  if (index == 0 || messages[index]["role"] != "assistant") return span;
  ordered_json before = ordered_json::array();
  for (size_t i = 0; i < index; ++i) before.push_back(messages[i]);
  try {
    const std::vector<TokenId> prompt = tokens_of(before, true);
    if (common_prefix(prompt, ids) == prompt.size()) span.begin = std::min(span.begin, prompt.size());
  } catch (const UserError&) {  // a conversation that the template does not let end here
  }
  return span;
}

EncodedDocument ChatEncoder::encode(const Conversation& conversation) const {
  const auto is_learned = [&](const std::string& role) {
    return std::find(format_.roles.begin(), format_.roles.end(), role) != format_.roles.end();
  };
  try {
    EncodedDocument out{tokens_of(conversation.messages, false), {}};
    if (is_learned(ChatFormat::kAll)) return out;
    out.supervised.assign(out.ids.size(), 0);
    for (size_t i = 0; i < conversation.messages.size(); ++i) {
      const ordered_json& message = conversation.messages[i];
      if (!is_learned(message["role"].get<std::string>())) continue;
      CRUMB_CHECK(
          !has_value(message, "tool_calls") || message["tool_calls"].empty(),
          "messages[{}] calls tools, which is not learned; leave the conversation out, or set data.roles: [all]", i);
      const Span span = span_of(conversation.messages, i, out.ids);
      std::fill(out.supervised.begin() + static_cast<int64_t>(span.begin),
                out.supervised.begin() + static_cast<int64_t>(span.end), uint8_t{1});
    }
    return out;
  } catch (const UserError& e) {
    user_error("{}: {}", conversation.where, e.what());
  }
}

}  // namespace crumb::text
