#include "core/jinja/chat_template.h"

#include <algorithm>
#include <set>

#include "core/common/error.h"

namespace crumb::jinja {
namespace {

Template template_of(const tokenizer::Tokenizer& tokenizer, const std::string& model) {
  const std::string source = tokenizer.chat_template();
  CRUMB_CHECK(!source.empty(),
              "{}: it has no chat template (chat_template.jinja, chat_template of tokenizer_config.json, or "
              "tokenizer.chat_template of a GGUF), so it is no model to chat with; crumb generate continues a text",
              model);
  return Template(source, model + ": chat template");
}

}  // namespace

ChatTemplate::ChatTemplate(const tokenizer::Tokenizer& tokenizer, const std::string& model)
    : tokenizer_(tokenizer), template_(template_of(tokenizer, model)) {}

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages, const ChatOptions& options) const {
  auto list = nlohmann::ordered_json::array();
  for (const auto& message : messages) list.push_back(to_json(message));
  return render(list, options);
}

std::string ChatTemplate::render(const nlohmann::ordered_json& messages, const ChatOptions& options) const {
  nlohmann::ordered_json variables = {{"messages", messages},
                                      {"tools", nullptr},
                                      {"documents", nullptr},
                                      {"add_generation_prompt", options.add_generation_prompt}};
  if (options.enable_thinking) variables["enable_thinking"] = *options.enable_thinking;
  const auto& special = tokenizer_.special();
  const auto name = [&](const char* key, std::optional<tokenizer::TokenId> id) {
    if (id) variables[key] = tokenizer_.piece(*id);
  };
  name("bos_token", special.bos);
  name("eos_token", special.eos);
  name("unk_token", special.unk);
  name("pad_token", special.pad);
  return template_.render(variables, options.now);
}

std::vector<tokenizer::TokenId> ChatTemplate::encode(const std::vector<ChatMessage>& messages,
                                                     const ChatOptions& options) const {
  return tokenizer_.encode(render(messages, options));
}

std::vector<tokenizer::TokenId> ChatTemplate::end_tokens() const {
  const auto& special = tokenizer_.special();
  std::set<tokenizer::TokenId> ends(special.end.begin(), special.end.end());
  if (special.eos) ends.insert(*special.eos);
  if (const auto id = end_of_turn()) ends.insert(*id);
  return {ends.begin(), ends.end()};
}

std::optional<tokenizer::TokenId> ChatTemplate::end_of_turn() const {
  static constexpr std::string_view kQuestion = "question", kAnswer = "answerwithoutmatch";
  std::string text;
  try {
    text = render(std::vector<ChatMessage>{{"user", std::string(kQuestion)}, {"assistant", std::string(kAnswer)}}, {});
  } catch (const UserError&) {
    return std::nullopt;  // the conversation itself will tell what it cannot do
  }
  const size_t answer = text.rfind(kAnswer);
  if (answer == std::string::npos) return std::nullopt;
  const auto ids = tokenizer_.encode(text.substr(answer + kAnswer.size()));
  const bool is_special = !ids.empty() && tokenizer_.is_special(ids.front());
  return is_special ? std::optional(ids.front()) : std::nullopt;
}

nlohmann::ordered_json to_json(const ChatMessage& message) {
  return {{"role", message.role}, {"content", message.content}};
}

}  // namespace crumb::jinja
