#include "core/tokenizer/split_scanner.h"

#include <array>

#include "core/common/error.h"
#include "core/tokenizer/unicode.h"

namespace crumb::tokenizer {

const std::string kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

const std::string kDigitGroups = "(digit groups of llama.cpp)";

namespace {

const std::string kNumberPattern = R"(\p{N})";

std::array<CharClass, 128> ascii_classes() {
  std::array<CharClass, 128> classes{};
  for (uint32_t c = 0; c < 128; ++c) classes[c] = char_class(c);
  return classes;
}

const std::array<CharClass, 128> kAscii = ascii_classes();

/// Class and size of the character at a position; size 0 at the end.
struct Char {
  CharClass kind = CharClass::other;
  size_t size = 0;
};

class Text {
 public:
  Text(std::string_view text, UnicodeTables tables) : text_(text), tables_(tables) {}

  size_t size() const { return text_.size(); }
  bool folds_long_s() const { return tables_ == UnicodeTables::newest; }
  char byte(size_t at) const { return at < text_.size() ? text_[at] : '\0'; }
  Char at(size_t i) const {
    if (i >= text_.size()) return {};
    const auto lead = static_cast<unsigned char>(text_[i]);
    if (lead < 0x80) return {kAscii[lead], 1};
    const CodePoint c = decode_utf8(text_.data() + i);
    return {char_class(c.value, tables_), c.size};
  }
  bool is(size_t i, CharClass kind) const {
    const Char c = at(i);
    return c.size > 0 && c.kind == kind;
  }
  /// Whether a number stands before i.
  bool ends_with_number(size_t i) const {
    if (i == 0) return false;
    do --i;
    while (is_continuation(text_[i]));
    return is(i, CharClass::number);
  }
  /// End of the run of `kind` that starts at i (i itself if there is none), at most `limit` characters.
  size_t run_end(size_t i, CharClass kind, size_t limit = SIZE_MAX) const {
    for (; limit > 0; --limit) {
      const Char c = at(i);
      if (c.size == 0 || c.kind != kind) break;
      i += c.size;
    }
    return i;
  }

 private:
  std::string_view text_;
  UnicodeTables tables_;
};

bool is_newline(char c) { return c == '\n' || c == '\r'; }

/// 's 't 're 've 'm 'll 'd at i; 0 if none stands there. Without case, U+017F (long s) counts as s for Oniguruma.
size_t contraction_size(const Text& text, size_t i, bool ignore_case) {
  const auto letter = [&](size_t at) {
    const char c = text.byte(at);
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char a = letter(i + 1), b = letter(i + 2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  if (ignore_case && text.folds_long_s() && a == '\xc5' && b == '\xbf') return 3;
  return 0;
}

/// \s+(?!\S)|\s+ from i: all of a run at the end of the text, else all but its last character; one character is taken
/// as it is.
size_t space_end(const Text& text, size_t i) {
  size_t last = i, end = i;
  for (Char c = text.at(i); c.size > 0 && c.kind == CharClass::space; c = text.at(end)) {
    last = end;
    end += c.size;
  }
  return end == text.size() || last == i ? end : last;
}

size_t next_gpt2(const Text& text, size_t i) {
  const char c = text.byte(i);
  if (c == '\'') {
    if (const size_t size = contraction_size(text, i, false); size > 0) return i + size;
  }
  const size_t start = i + (c == ' ' ? 1 : 0);
  const Char first = text.at(start);
  if (first.size > 0 && first.kind != CharClass::space) return text.run_end(start + first.size, first.kind);
  return space_end(text, i);
}

/// \s*[\r\n]+ from i: up to the last line break of the run of white space; 0 if it has none.
size_t line_break_end(const Text& text, size_t i) {
  size_t end = 0;
  for (Char c = text.at(i); c.size > 0 && c.kind == CharClass::space; c = text.at(i)) {
    i += c.size;
    if (is_newline(text.byte(i - 1))) end = i;
  }
  return end;
}

/// Where the next character of `kind` stands.
size_t next_of_kind(const Text& text, size_t i, CharClass kind) {
  for (Char c = text.at(i); c.size > 0 && c.kind != kind; c = text.at(i)) i += c.size;
  return i;
}

size_t next_llama3(const Text& text, size_t i, size_t max_digits) {
  const char c = text.byte(i);
  if (c == '\'') {
    if (const size_t size = contraction_size(text, i, true); size > 0) return i + size;
  }
  const Char first = text.at(i);
  if (first.kind == CharClass::letter) return text.run_end(i + first.size, CharClass::letter);
  if (first.kind == CharClass::number) return text.run_end(i, CharClass::number, max_digits);
  if (!is_newline(c) && text.is(i + first.size, CharClass::letter))
    return text.run_end(i + first.size, CharClass::letter);
  const size_t start = i + (c == ' ' ? 1 : 0);
  if (text.is(start, CharClass::other)) {
    size_t end = text.run_end(start, CharClass::other);
    while (end < text.size() && is_newline(text.byte(end))) ++end;
    return end;
  }
  if (const size_t end = line_break_end(text, i); end > 0) return end;
  return space_end(text, i);
}

/// A number, or the stretch up to the next one.
size_t next_number(const Text& text, size_t i) {
  const Char first = text.at(i);
  if (first.kind == CharClass::number) return i + first.size;
  return next_of_kind(text, i, CharClass::number);
}

size_t next_digit_group(const Text& text, size_t i) {
  if (text.is(i, CharClass::number) && text.ends_with_number(i)) return text.run_end(i, CharClass::number, 3);
  const size_t start = next_of_kind(text, i, CharClass::number);
  size_t count = 0;
  for (size_t at = start; text.is(at, CharClass::number); at += text.at(at).size) ++count;
  return text.run_end(start, CharClass::number, count % 3 == 0 ? 3 : count % 3);
}

size_t next_piece(Scanner scanner, const Text& text, size_t i) {
  switch (scanner) {
    case Scanner::gpt2:
      return next_gpt2(text, i);
    case Scanner::number:
      return next_number(text, i);
    case Scanner::digit_groups:
      return next_digit_group(text, i);
    default:
      return next_llama3(text, i, scanner == Scanner::llama3 ? 3 : 1);
  }
}

}  // namespace

std::string canonical_pattern(std::string_view pattern) {
  std::string out;
  for (const char c : pattern) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else
      out += c;
  }
  return out;
}

Scanner scanner_for(std::string_view pattern) {
  const std::string text = canonical_pattern(pattern);
  if (text == kGpt2Pattern) return Scanner::gpt2;
  if (text == kLlama3Pattern) return Scanner::llama3;
  if (text == kQwen2Pattern) return Scanner::qwen2;
  if (text == kNumberPattern) return Scanner::number;
  if (text == kDigitGroups) return Scanner::digit_groups;
  return Scanner::none;
}

size_t scan(Scanner scanner, UnicodeTables tables, std::string_view view, size_t begin, size_t max_pieces,
            std::vector<Span>& pieces) {
  CRUMB_ASSERT(scanner != Scanner::none);
  const Text text(view, tables);
  for (; begin < view.size() && max_pieces > 0; --max_pieces) {
    const size_t end = next_piece(scanner, text, begin);
    pieces.push_back({begin, end});
    begin = end;
  }
  return begin;
}

}  // namespace crumb::tokenizer
