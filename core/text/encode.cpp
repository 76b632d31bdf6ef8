#include "core/text/encode.h"

#include <utility>

#include "core/common/error.h"

namespace crumb::text {
namespace {

constexpr size_t kDocumentBytes = 128;  // what a document takes beside its bytes: a batch of short ones is small, too

std::vector<TokenId> encode_framed(const tokenizer::Tokenizer& tokenizer, const Frame& frame,
                                   std::string_view document) {
  std::vector<TokenId> ids = tokenizer.encode(document);
  if (frame.before) ids.insert(ids.begin(), *frame.before);
  if (frame.after) ids.push_back(*frame.after);
  return ids;
}

}  // namespace

Frame document_frame(const tokenizer::Tokenizer& tokenizer, bool bos) {
  const auto& special = tokenizer.special();
  CRUMB_CHECK(!bos || special.bos, "bos: the tokenizer has no BOS token");
  return {bos ? special.bos : std::nullopt, special.eos};
}

DocumentEncoder::DocumentEncoder(const tokenizer::Tokenizer& tokenizer, const Frame& frame, ParallelFor parallel_for,
                                 Sink sink, size_t batch_bytes)
    : tokenizer_(tokenizer),
      frame_(frame),
      parallel_for_(std::move(parallel_for)),
      sink_(std::move(sink)),
      batch_bytes_(batch_bytes) {}

void DocumentEncoder::add(std::string_view document) { hold(std::string(document), document.size()); }

void DocumentEncoder::add(Conversation conversation, const ChatEncoder& chat) {
  size_t bytes = 0;
  for (const auto& message : conversation.messages)
    bytes += message.contains("content") && message["content"].is_string()
                 ? message["content"].get_ref<const std::string&>().size()
                 : 0;
  hold(Chat{std::move(conversation), &chat}, bytes);
}

void DocumentEncoder::hold(Item item, size_t bytes) {
  batch_.push_back(std::move(item));
  held_bytes_ += bytes + kDocumentBytes;
  if (held_bytes_ >= batch_bytes_) finish();
}

EncodedDocument DocumentEncoder::encode(const Item& item) const {
  if (const auto* chat = std::get_if<Chat>(&item)) return chat->encoder->encode(chat->conversation);
  return {encode_framed(tokenizer_, frame_, std::get<std::string>(item)), {}};
}

void DocumentEncoder::finish() {
  std::vector<EncodedDocument> encoded(batch_.size());
  parallel_for_(static_cast<int64_t>(batch_.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) encoded[i] = encode(batch_[i]);
  });
  for (const auto& document : encoded) sink_(document.ids, document.supervised);
  batch_.clear();
  held_bytes_ = 0;
}

}  // namespace crumb::text
