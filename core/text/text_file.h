// Text files: what their bytes are, and the documents in them.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "core/common/file.h"
#include "core/text/chat.h"

namespace crumb::text {

/// The text of `bytes`, without the byte order mark of UTF-8: it says how a file is encoded and is no part of the text
/// (U+FEFF anywhere else is). UserError for bytes that are another kind of file
/// (compressed, Parquet, UTF-16, a model ...). Warns with their number where bytes are not UTF-8: a tokenizer reads
/// U+FFFD there. `name` stands in both messages.
std::string_view checked_text(std::string_view bytes, const std::string& name);

/// The ill-formed parts of UTF-8 in a text, each of which becomes U+FFFD where it is read or written.
int64_t count_ill_formed(std::string_view text);

/// A file of documents. It is JSON where its name ends in .jsonl, .ndjson or .json, in any case of letters, and where
/// it begins with an object that has a "text", or with a list of such: one object a line, objects one after the other,
/// or a list of them; the documents are their "text". Any other file is plain text, cut at a separator. The file is
/// mapped, and whatever goes through it gives the pages behind back.
class TextFile {
 public:
  /// UserError: missing, not a text.
  explicit TextFile(const Path& path);

  const Path& path() const { return file_.path(); }
  bool is_json() const { return is_json_; }
  /// Whether it is JSON whose first object has "messages": a file of conversations.
  bool is_chat() const { return is_chat_; }
  /// Of the text and of how its documents are found.
  uint64_t hash(uint64_t h) const;

  /// Calls `document` for each document, in order; plain text is cut at `separator` (empty: the file is one document).
  /// Documents without a byte are left out; a view lives during its call only. UserError with file, line and column: an
  /// object without "text", chat "messages", text that is not JSON; a file without any document.
  void for_each_document(std::string_view separator, const std::function<void(std::string_view)>& document) const;
  /// The same of conversations: of a file that is_chat(). UserError with file, line and column for what is none, as
  /// conversation_of() has it.
  void for_each_conversation(const std::function<void(Conversation)>& conversation) const;

 private:
  MappedFile file_;
  std::string_view text_;
  bool is_json_, is_chat_;
};

}  // namespace crumb::text
