// Conversations become tokens to train on: written by the model's own template, with a mask of what is to be learned.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/jinja/chat_template.h"

namespace crumb::text {

using tokenizer::TokenId;

/// How conversations are written, and which of their turns are learned.
struct ChatFormat {
  static constexpr const char* kAll = "all";

  std::vector<std::string> roles = {"assistant"};  // kAll among them: every token, the template's own too
  std::optional<bool> enable_thinking = {};        // passed to the template; none: what it does by itself
  std::string model = {};                          // whose template it is, for messages
};

/// One line of a file of conversations.
struct Conversation {
  nlohmann::ordered_json messages;  // [{"role": "user", "content": "..."}, ...], checked by conversation_of()
  std::string where;                // "FILE:LINE", for messages
};

/// UserError beginning with `where` unless `object` has "messages": a list of objects with a "role" and a "content",
/// both texts (null or no content: of a message that calls tools).
Conversation conversation_of(const nlohmann::ordered_json& object, const std::string& where);

/// The tokens of one document.
struct EncodedDocument {
  std::vector<TokenId> ids;
  std::vector<uint8_t> supervised;  // 1: it is one to predict; empty: all are
};

class ChatEncoder {
 public:
  /// The template of `tokenizer`, which must outlive it. UserError where it has none.
  ChatEncoder(const tokenizer::Tokenizer& tokenizer, const ChatFormat& format);

  /// The whole conversation as the template writes it. Supervised are, of each message of the roles, its content and
  /// the token behind it that ends a turn; of an assistant's message also what the template writes between the prompt
  /// for it and its content, such as a thought. Where a token holds the first bytes of a content and what stands before
  /// it, it is supervised. UserError with file and line where the template fails.
  EncodedDocument encode(const Conversation& conversation) const;

  /// A hash of the template and the format.
  uint64_t identity() const;
  const std::vector<std::string>& roles() const { return format_.roles; }

 private:
  struct Span {
    size_t begin = 0, end = 0;
  };
  std::vector<TokenId> tokens_of(const nlohmann::ordered_json& messages, bool prompt) const;
  Span span_of(const nlohmann::ordered_json& messages, size_t index, const std::vector<TokenId>& ids) const;

  const tokenizer::Tokenizer& tokenizer_;
  ChatFormat format_;
  jinja::ChatTemplate template_;
  std::vector<TokenId> end_tokens_;  // sorted
};

}  // namespace crumb::text
