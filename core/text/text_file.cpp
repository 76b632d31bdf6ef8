#include "core/text/text_file.h"

#include <algorithm>
#include <cctype>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/common/quantity.h"
#include "core/text/release_behind.h"
#include "core/tokenizer/unicode.h"

namespace crumb::text {
namespace {

using namespace std::string_view_literals;
using tokenizer::is_continuation;
using tokenizer::next_utf8;
using tokenizer::Utf8Sequence;

constexpr std::string_view kUtf8Mark = "\xEF\xBB\xBF";

struct Kind {
  std::string_view start;
  const char* name;
};
// The 32-bit marks before the 16-bit ones, which they begin with.
constexpr Kind kOtherKinds[] = {{"\x1F\x8B"sv, "compressed by gzip; decompress it first"},
                                {"\x28\xB5\x2F\xFD"sv, "compressed by zstd; decompress it first"},
                                {"BZh"sv, "compressed by bzip2; decompress it first"},
                                {"\xFD"
                                 "7zXZ\0"sv,
                                 "compressed by xz; decompress it first"},
                                {"PK\x03\x04"sv, "a zip archive; unpack it first"},
                                {"PAR1"sv, "a Parquet file; write its texts as JSON lines"},
                                {"ARROW1"sv, "an Arrow file; write its texts as JSON lines"},
                                {"%PDF-"sv, "a PDF; extract its text first"},
                                {"GGUF"sv, "a GGUF model, not a text"},
                                {"\xFF\xFE\0\0"sv, "UTF-32 text; convert it to UTF-8"},
                                {"\0\0\xFE\xFF"sv, "UTF-32 text; convert it to UTF-8"},
                                {"\xFF\xFE"sv, "UTF-16 text; convert it to UTF-8"},
                                {"\xFE\xFF"sv, "UTF-16 text; convert it to UTF-8"}};

/// A text may begin with the letters "BZh", "GGUF" or "PK" of a kind; no text goes on as that does.
bool is_kind(const Kind& kind, std::string_view bytes) {
  if (!bytes.starts_with(kind.start)) return false;
  const auto is_binary = [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x7F || (byte < ' ' && std::string_view("\t\n\v\f\r").find(c) == std::string_view::npos);
  };
  const auto head = bytes.substr(0, 64);
  return std::any_of(head.begin(), head.end(), is_binary);
}

/// Without a mark: one byte, always the same, of the pairs of a UTF-16 text is 0 wherever it holds ASCII; that is half
/// of all bytes in English, those of spaces in Russian. Zeros that separate documents stand at either.
bool looks_like_utf16(std::string_view bytes) {
  const size_t length = std::min<size_t>(bytes.size(), 65536) / 2 * 2;
  size_t zeros[2] = {0, 0};
  for (size_t i = 0; i < length; ++i) zeros[i % 2] += bytes[i] == '\0';
  const size_t most = std::max(zeros[0], zeros[1]);
  const bool is_pairs = bytes.size() % 2 == 0 && most >= 2;  // one 0 alone is a character like others
  return is_pairs && std::min(zeros[0], zeros[1]) == 0 && (most > length / 4 || (most >= 16 && most > length / 64));
}

struct IllFormed {
  int64_t parts = 0;  // U+FFFD that they become
  size_t first = 0;
  bool has_other = false;  // characters beyond ASCII that are well-formed
};

/// Told how many bytes of a text were gone through.
using Passed = std::function<void(size_t)>;
constexpr size_t kBlockBytes = size_t{ReleaseBehind::kBlockBytes};

IllFormed find_ill_formed(std::string_view text, const Passed& passed) {
  IllFormed found;
  size_t next_block = kBlockBytes;
  for (size_t at = 0; at < text.size();) {
    if (at >= next_block) {
      passed(at);
      next_block = at + kBlockBytes;
    }
    const auto next = next_utf8(text.substr(at));
    if (next.state != Utf8Sequence::State::valid && found.parts++ == 0) found.first = at;
    found.has_other = found.has_other || (next.state == Utf8Sequence::State::valid && next.size > 1);
    at += next.size;
  }
  return found;
}

/// Where text stands, as an editor counts: from 1, the column in characters.
struct Place {
  int64_t line = 1, column = 1;

  void pass(std::string_view text) {
    for (const char c : text) {
      if (c == '\n') {
        ++line;
        column = 1;
      } else {
        column += !is_continuation(c);
      }
    }
  }
};

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/// The bytes that the JSON value at the start of `text` takes, if it is one: to the bracket or quote that closes the
/// first one, else to the end of the word. npos where nothing closes it.
size_t extent_of_value(std::string_view text) {
  if (std::string_view("{[\"").find(text[0]) == std::string_view::npos)
    return std::min(text.find_first_of(" \t\r\n"), text.size());
  int64_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      i += c == '\\';
      in_string = c != '"';
      if (!in_string && depth == 0) return i + 1;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if ((c == '}' || c == ']') && --depth == 0) {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

/// Calls `value` for the JSON values in a text, with where each begins: those of its lines, if the first one takes the
/// whole of its line, those of a list, or those that follow each other.
class ValueReader {
 public:
  ValueReader(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  void read(const std::function<void(std::string_view, const Place&)>& value) {
    skip_blanks();
    if (text_.empty()) return;
    if (text_[0] == '[')
      read_list(value);
    else if (are_values_lines())
      for (; !text_.empty(); skip_blanks()) read_one(value, text_.find('\n'));
    else
      for (; !text_.empty(); skip_blanks()) read_one(value, extent_of_value(text_));
  }

 private:
  /// So that a line that is broken is told by its number, it is what the first one looks like that counts.
  bool are_values_lines() const {
    const size_t extent = extent_of_value(text_);
    if (extent == std::string_view::npos) return true;
    const size_t after = text_.find_first_not_of(" \t\r", extent);
    const bool is_alone = after == std::string_view::npos || text_[after] == '\n';
    return is_alone && text_.substr(0, extent).find('\n') == std::string_view::npos;
  }

  void read_list(const std::function<void(std::string_view, const Place&)>& value) {
    pass(1);
    skip_blanks();
    for (bool is_first = true; !text_.empty() && text_[0] != ']'; is_first = false) {
      if (!is_first) expect(',');
      if (!text_.empty())
        read_one(value, std::string_view("{[\"").find(text_[0]) != std::string_view::npos ? extent_of_value(text_)
                                                                                          : end_of_word());
      skip_blanks();
    }
    expect(']');
    CRUMB_CHECK(text_.empty(), "{}:{}:{}: text after the end of the list", name_, place_.line, place_.column);
  }

  size_t end_of_word() const { return std::max<size_t>(1, std::min(text_.find_first_of(",] \t\r\n"), text_.size())); }

  void expect(char c) {
    CRUMB_CHECK(!text_.empty() && text_[0] == c, "{}:{}:{}: not valid JSON: expected '{}'", name_, place_.line,
                place_.column, c);
    pass(1);
    skip_blanks();
  }

  void read_one(const std::function<void(std::string_view, const Place&)>& value, size_t extent) {
    extent = std::min(extent, text_.size());
    value(text_.substr(0, extent), place_);
    pass(extent);
  }

  void skip_blanks() {
    size_t count = 0;
    while (count < text_.size() && is_blank(text_[count])) ++count;
    pass(count);
  }

  void pass(size_t count) {
    place_.pass(text_.substr(0, count));
    text_.remove_prefix(count);
  }

  std::string_view text_;  // what is left
  const std::string& name_;
  Place place_;
};

std::string text_of(std::string_view value, const std::string& name, const Place& place) {
  const auto json = parse_json(value, name, {.first_line = place.line, .first_column = place.column});
  const std::string where = fmt::format("{}:{}", name, place.line);
  CRUMB_CHECK(json.is_object(), "{}: not a JSON object but {}; expected {{\"text\": \"...\"}}", where,
              json_excerpt(json));
  const JsonObject object(json, where);
  CRUMB_CHECK(!object.has("messages"),
              "{}: a conversation (\"messages\"), where {{\"text\": \"...\"}} is read; conversations are read by crumb "
              "train only, from a file that begins with one",
              where);
  CRUMB_CHECK(object.has("text"), "{}: no \"text\"; expected {{\"text\": \"...\"}}", where);
  return object.get<std::string>("text");
}

/// Whether JSON begins with an object that has "messages", or with a list of such.
bool begins_with_conversation(std::string_view text, const std::string& name) {
  const size_t list = std::min(text.find_first_not_of(" \t\r\n"), text.size());
  if (text.substr(list).starts_with('[')) text.remove_prefix(list + 1);
  const size_t begin = std::min(text.find_first_not_of(" \t\r\n"), text.size());
  text.remove_prefix(begin);
  if (!text.starts_with('{')) return false;
  try {
    return parse_json(text.substr(0, extent_of_value(text)), name).contains("messages");
  } catch (const UserError&) {  // told with its place where it is read
    return false;
  }
}

bool has_json_ending(const Path& path) {
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return std::tolower(c); });
  return ending == ".jsonl" || ending == ".ndjson" || ending == ".json";
}

/// Whether a text whose name does not say so begins with an object of documents, or a list of them.
bool begins_with_json_document(std::string_view text, const std::string& name) {
  const auto skip_blanks = [&] { text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size())); };
  skip_blanks();
  const bool is_list = text.starts_with('[');
  if (is_list) text.remove_prefix(1), skip_blanks();
  if (!text.starts_with('{')) return false;
  try {
    const auto json = parse_json(text.substr(0, extent_of_value(text)), name);
    if (json.contains("text") || json.contains("messages")) return true;
    log_warning("{}: begins with a JSON object that has no \"text\"; it is read as plain text", name);
  } catch (const UserError&) {  // prose that begins with a brace
  }
  return false;
}

/// Calls `piece` for the parts of `text` between separators.
void split(std::string_view text, std::string_view separator, const std::function<void(std::string_view)>& piece) {
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = separator.empty() ? std::string_view::npos : text.find(separator, begin);
    piece(text.substr(begin, end == std::string_view::npos ? end : end - begin));
    if (end == std::string_view::npos) return;
    begin = end + separator.size();
  }
}

std::string_view characters(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

/// As checked_text() of the header.
std::string_view check(std::string_view bytes, const std::string& name, const Passed& passed) {
  for (const Kind& kind : kOtherKinds) CRUMB_CHECK(!is_kind(kind, bytes), "{}: {}", name, kind.name);
  CRUMB_CHECK(!looks_like_utf16(bytes), "{}: UTF-16 text; convert it to UTF-8", name);
  if (bytes.starts_with(kUtf8Mark)) bytes.remove_prefix(kUtf8Mark.size());
  const IllFormed found = find_ill_formed(bytes, passed);
  if (found.parts == 0) return bytes;
  Place place;
  place.pass(bytes.substr(0, found.first));
  // Text in a language of Europe has one such byte in twenty at most.
  CRUMB_CHECK(found.parts <= static_cast<int64_t>(bytes.size() / 8 + 1),
              "{}:{}:{}: not a text in UTF-8: {} of its {} bytes cannot be read; convert it to UTF-8", name, place.line,
              place.column, format_count(found.parts), format_count(static_cast<int64_t>(bytes.size())));
  log_warning("{}:{}:{}: {} that {} not UTF-8 (first at byte {}) {} read as U+FFFD{}", name, place.line, place.column,
              found.parts == 1 ? "a byte" : format_count(found.parts) + " bytes or sequences",
              found.parts == 1 ? "is" : "are", found.first, found.parts == 1 ? "is" : "are",
              found.has_other ? "" : "; if the text is Latin-1, convert it to UTF-8");
  return bytes;
}

/// The same of a mapped file, whose pages are given back.
std::string_view check(const MappedFile& file) {
  ReleaseBehind behind(file);
  const std::string_view bytes = characters(file);
  return check(bytes, file.path().string(), [&](size_t passed) { behind.pass(bytes.data() + passed); });
}

}  // namespace

std::string_view checked_text(std::string_view bytes, const std::string& name) {
  return check(bytes, name, [](size_t) {});
}

int64_t count_ill_formed(std::string_view text) {
  return find_ill_formed(text, [](size_t) {}).parts;
}

TextFile::TextFile(const Path& path)
    : file_(path),
      text_(check(file_)),
      is_json_(has_json_ending(path) || begins_with_json_document(text_, path.string())),
      is_chat_(is_json_ && begins_with_conversation(text_, path.string())) {}

uint64_t TextFile::hash(uint64_t h) const {
  ReleaseBehind behind(file_);
  h = hash_word(hash_word(h, is_json_ ? 1 : 0), text_.size());
  for (std::string_view rest = text_; !rest.empty(); rest.remove_prefix(std::min(kBlockBytes, rest.size()))) {
    behind.pass(rest.data());
    h = hash_words(h, rest.substr(0, kBlockBytes));
  }
  return h;
}

void TextFile::for_each_document(std::string_view separator,
                                 const std::function<void(std::string_view)>& document) const {
  const std::string name = path().string();
  int64_t documents = 0;
  ReleaseBehind behind(file_);
  const auto give = [&](std::string_view text) {
    if (text.empty()) return;
    ++documents;
    document(text);
  };
  if (is_json_) {
    ValueReader(text_, name).read([&](std::string_view value, const Place& place) {
      behind.pass(value.data());
      give(text_of(value, name, place));
    });
  } else {
    split(text_, separator, [&](std::string_view piece) {
      behind.pass(piece.data());
      give(piece);
    });
    constexpr size_t kLong = size_t{1} << 20;
    if (documents == 1 && !separator.empty() && text_.size() >= kLong)
      log_warning("{}: the separator of documents does not occur in it (data.separator): one document of {} bytes",
                  name, text_.size());
  }
  CRUMB_CHECK(documents > 0, "{}: the text is empty", name);
}

void TextFile::for_each_conversation(const std::function<void(Conversation)>& conversation) const {
  CRUMB_ASSERT(is_chat_);
  const std::string name = path().string();
  ReleaseBehind behind(file_);
  ValueReader(text_, name).read([&](std::string_view value, const Place& place) {
    behind.pass(value.data());
    parse_json(value, name, {.first_line = place.line, .first_column = place.column});  // with its bounds and messages
    // again, because templates may write the keys of a message in their order
    conversation(conversation_of(nlohmann::ordered_json::parse(value), fmt::format("{}:{}", name, place.line)));
  });
}

}  // namespace crumb::text
