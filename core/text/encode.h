// Documents become tokens: what is put around each, in training and in judging alike, and many of them at once.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/common/thread_pool.h"
#include "core/text/chat.h"
#include "core/tokenizer/tokenizer.h"

namespace crumb::text {

/// The tokens before and after every document.
struct Frame {
  std::optional<TokenId> before, after;
};
/// EOS after each, if the tokenizer has one; BOS before each, if `bos`. UserError: BOS asked for and there is none.
Frame document_frame(const tokenizer::Tokenizer& tokenizer, bool bos);

/// Encodes documents in parallel, and gives them in order. Holds a batch of them and their tokens, whatever came
/// before: a document longer than that is a batch of its own.
class DocumentEncoder {
 public:
  /// The tokens of one document, its frame included, and which of them are supervised (empty: all); the views live
  /// during the call.
  using Sink = std::function<void(std::span<const TokenId> ids, std::span<const uint8_t> supervised)>;
  static constexpr size_t kBatchBytes = size_t{8} << 20;

  DocumentEncoder(const tokenizer::Tokenizer& tokenizer, const Frame& frame, ParallelFor parallel_for, Sink sink,
                  size_t batch_bytes = kBatchBytes);

  void add(std::string_view document);
  /// Has no frame: the template writes what stands around it. `chat` must live until finish().
  void add(Conversation conversation, const ChatEncoder& chat);
  /// Gives what is left.
  void finish();

 private:
  const tokenizer::Tokenizer& tokenizer_;
  Frame frame_;
  ParallelFor parallel_for_;
  Sink sink_;
  size_t batch_bytes_;
  struct Chat {
    Conversation conversation;
    const ChatEncoder* encoder;
  };
  using Item = std::variant<std::string, Chat>;
  EncodedDocument encode(const Item& item) const;
  void hold(Item item, size_t bytes);

  std::vector<Item> batch_;
  size_t held_bytes_ = 0;
};

}  // namespace crumb::text
