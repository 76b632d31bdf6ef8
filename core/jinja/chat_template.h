// A model's own way to write a conversation as one text.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/jinja/template.h"
#include "core/tokenizer/tokenizer.h"

namespace crumb::jinja {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

/// For prompts that must be the same tomorrow: 2024-01-01.
inline constexpr std::time_t kRepeatableDate = 1'704'067'200;

struct ChatOptions {
  bool add_generation_prompt = false;        // ends with what stands before an answer
  std::optional<bool> enable_thinking = {};  // none: what the template does by itself
  std::time_t now = 0;                       // for templates that write the date; 0: the clock's
};

class ChatTemplate {
 public:
  /// The template that came with `tokenizer`, which must outlive it. `model`: its name, for messages. UserError where
  /// it has none, or one that is not supported.
  ChatTemplate(const tokenizer::Tokenizer& tokenizer, const std::string& model);

  /// UserError where the template fails; Refusal where it refuses the conversation.
  std::string render(const std::vector<ChatMessage>& messages, const ChatOptions& options) const;
  /// The same of messages as JSON, [{"role": ..., "content": ..., ...}, ...], whose other keys the template sees, too.
  std::string render(const nlohmann::ordered_json& messages, const ChatOptions& options) const;
  /// Its ids: special tokens that the text spells are those, and none are added.
  std::vector<tokenizer::TokenId> encode(const std::vector<ChatMessage>& messages, const ChatOptions& options) const;

  /// What ends an answer: the end tokens of the model, and the special token that the template writes behind an
  /// assistant's message. Sorted.
  std::vector<tokenizer::TokenId> end_tokens() const;

 private:
  std::optional<tokenizer::TokenId> end_of_turn() const;

  const tokenizer::Tokenizer& tokenizer_;
  Template template_;
};

/// {"role": ..., "content": ...}
nlohmann::ordered_json to_json(const ChatMessage& message);

}  // namespace crumb::jinja
