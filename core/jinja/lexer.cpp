#include "core/jinja/lexer.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "core/common/error.h"
#include "core/jinja/text.h"
#include "core/tokenizer/unicode.h"

namespace crumb::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
bool is_name_part(char c) { return is_name_start(c) || is_digit(c); }

/// "\r\n" and "\r" become "\n"; the last line end goes, as Jinja has it unless told otherwise.
std::string with_plain_lines(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r')
      out += source[i];
    else if (i + 1 == source.size() || source[i + 1] != '\n')
      out += '\n';
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string source, std::string name) : source_(std::move(source)), name_(std::move(name)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text_and_tag();
    add(Token::Kind::end);
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { user_error("{}:{}: {}", name_, line_, what); }

  void add(Token::Kind kind, std::string value = "") { tokens_.push_back({kind, std::move(value), {}, line_}); }

  bool starts(std::string_view part) const { return std::string_view(source_).substr(at_).starts_with(part); }

  void advance(size_t bytes) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + bytes), '\n'));
    at_ += bytes;
  }

  void skip_space() {
    const std::string_view rest = std::string_view(source_).substr(at_);
    advance(rest.size() - strip(rest, Ends::left).size());
  }

  void text_and_tag() {
    const size_t begin = at_;
    size_t tag = begin;
    do {
      tag = source_.find('{', tag);
    } while (tag != std::string::npos &&
             (tag + 1 >= source_.size() || std::string_view("{%#").find(source_[tag + 1]) == std::string_view::npos) &&
             ++tag != std::string::npos);
    const bool has_tag = tag != std::string::npos;
    std::string_view text = std::string_view(source_).substr(begin, has_tag ? tag - begin : std::string_view::npos);
    if (!has_tag) {
      add(Token::Kind::text, std::string(text));
      at_ = source_.size();
      return;
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign == '-')
      text = strip(text, Ends::right);
    else if (sign != '+' && kind != '{')
      text = without_indent(text);
    if (!text.empty()) add(Token::Kind::text, std::string(text));
    advance(tag - begin);
    advance(sign == '-' || sign == '+' ? 3 : 2);
    if (kind == '#')
      comment();
    else if (kind == '{')
      print_tag();
    else if (!raw_block())
      block_tag();
  }

  /// lstrip_blocks: spaces between the beginning of a line and a tag go.
  std::string_view without_indent(std::string_view text) const {
    const size_t line_begin = text.rfind('\n') + 1;  // npos + 1 == 0
    if (line_begin == 0 && !line_starting_) return text;
    return strip(text.substr(line_begin), Ends::left).empty() ? text.substr(0, line_begin) : text;
  }

  /// Behind a tag: "-" takes the white space, else trim_blocks the line end, unless "+" says no.
  void end_tag(char sign, bool trims) {
    const size_t before = at_;
    if (sign == '-')
      skip_space();
    else if (sign != '+' && trims && starts("\n"))
      advance(1);
    line_starting_ = at_ > before && source_[at_ - 1] == '\n';
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail("a comment without an end");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    advance(end + 2 - at_);
    end_tag(sign, true);
  }

  /// {% raw %} ... {% endraw %}; false, and nothing is read, where the block is another.
  bool raw_block() {
    const auto word_behind = [this](size_t from, std::string_view word) -> size_t {  // the place behind WORD %}
      const std::string_view rest = std::string_view(source_).substr(from);
      std::string_view left = strip(rest, Ends::left);
      if (!left.starts_with(word)) return std::string::npos;
      left = strip(left.substr(word.size()), Ends::left);
      const bool has_sign = left.starts_with("-%}") || left.starts_with("+%}");
      if (!has_sign && !left.starts_with("%}")) return std::string::npos;
      return source_.size() - left.size() + (has_sign ? 3 : 2);
    };
    const size_t begin = word_behind(at_, "raw");
    if (begin == std::string::npos) return false;
    const char begin_sign = source_[begin - 3];
    advance(begin - at_);
    if (begin_sign == '-') skip_space();
    line_starting_ = source_[at_ - 1] == '\n';
    const size_t text_begin = at_;
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      const size_t end = word_behind(tag + (sign == '-' || sign == '+' ? 3 : 2), "endraw");
      if (end == std::string::npos) continue;
      std::string_view text = std::string_view(source_).substr(text_begin, tag - text_begin);
      if (sign == '-')
        text = strip(text, Ends::right);
      else if (sign != '+')
        text = without_indent(text);
      if (!text.empty()) add(Token::Kind::text, std::string(text));
      advance(end - at_);
      end_tag(source_[end - 3], true);
      return true;
    }
    fail("a raw block without an end");
  }

  void print_tag() {
    add(Token::Kind::print_begin);
    const char sign = inside("}}");
    add(Token::Kind::print_end);
    end_tag(sign, false);
  }

  void block_tag() {
    add(Token::Kind::block_begin);
    const char sign = inside("%}");
    add(Token::Kind::block_end);
    end_tag(sign, true);
  }

  /// Tokens up to the end of the tag; its sign.
  char inside(std::string_view end) {
    std::string open;
    while (true) {
      skip_space();
      if (at_ >= source_.size()) fail(fmt::format("a tag without its end, {}", end));
      if (open.empty()) {
        const char sign = source_[at_];
        const bool has_sign = sign == '-' || (sign == '+' && end == "%}");
        if (starts(end) || (has_sign && std::string_view(source_).substr(at_ + 1).starts_with(end))) {
          const bool is_bare = starts(end);
          advance(is_bare ? 2 : 3);
          return is_bare ? '\0' : sign;
        }
      }
      one_token(open);
    }
  }

  void one_token(std::string& open) {
    const char c = source_[at_];
    if (is_digit(c))
      number();
    else if (is_name_start(c))
      name();
    else if (c == '"' || c == '\'')
      string(c);
    else
      symbol(open);
  }

  void name() {
    size_t end = at_;
    while (end < source_.size() && is_name_part(source_[end])) ++end;
    add(Token::Kind::name, source_.substr(at_, end - at_));
    advance(end - at_);
  }

  void number() {
    std::string digits;
    size_t at = at_;
    const auto take = [&](const auto& is_one) {
      while (at < source_.size() && (is_one(source_[at]) || (source_[at] == '_' && !digits.empty()))) {
        if (source_[at] != '_') digits += source_[at];
        ++at;
      }
    };
    int base = 10;
    if (source_[at] == '0' && at + 1 < source_.size()) {
      const char mark = static_cast<char>(source_[at + 1] | 0x20);
      base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
    }
    if (base != 10) {
      at += 2;
      take([](char c) { return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); });
      add_whole(digits, base);
    } else {
      take(is_digit);
      bool is_float = false;
      if (at + 1 < source_.size() && source_[at] == '.' && is_digit(source_[at + 1]) && !after_dot()) {
        is_float = true;
        digits += '.';
        ++at;
        take(is_digit);
      }
      if (const size_t exponent = exponent_size(at); exponent > 0) {
        is_float = true;
        digits += source_.substr(at, exponent);
        at += exponent;
        take(is_digit);
      }
      if (is_float) {
        add(Token::Kind::number);
        tokens_.back().number = Value(std::strtod(digits.c_str(), nullptr));
      } else {
        if (digits.size() > 1 && digits[0] == '0' && digits.find_first_not_of('0') != std::string::npos)
          fail(fmt::format("\"{}\" is not a number", digits));
        add_whole(digits, 10);
      }
    }
    advance(at - at_);
  }

  /// In "x.0.1" the numbers are places, not 0.1.
  bool after_dot() const { return at_ > 0 && source_[at_ - 1] == '.'; }

  /// Bytes of "e", "e+" or "e-" before digits.
  size_t exponent_size(size_t at) const {
    if (at >= source_.size() || (source_[at] | 0x20) != 'e' || after_dot()) return 0;
    const bool has_sign = at + 1 < source_.size() && (source_[at + 1] == '+' || source_[at + 1] == '-');
    const size_t size = has_sign ? 2 : 1;
    return at + size < source_.size() && is_digit(source_[at + size]) ? size : 0;
  }

  void add_whole(const std::string& digits, int base) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (error != std::errc() || end != digits.data() + digits.size())
      fail(fmt::format("\"{}\" is not a whole number of 64 bits", digits));
    add(Token::Kind::number);
    tokens_.back().number = Value(value);
  }

  /// Backslashes as in Python's strings.
  void string(char quote) {
    std::string out;
    size_t at = at_ + 1;
    while (true) {
      if (at >= source_.size()) fail("a string without its end");
      const char c = source_[at++];
      if (c == quote) break;
      if (c != '\\') {
        out += c;
        continue;
      }
      if (at >= source_.size()) fail("a string without its end");
      at = escape(at, out);
    }
    add(Token::Kind::string, std::move(out));
    advance(at - at_);
  }

  /// `at`: behind the backslash; returns the place behind what it stands for.
  size_t escape(size_t at, std::string& out) {
    static constexpr std::string_view kMarks = "abfnrtv\\'\"", kMeanings = "\a\b\f\n\r\t\v\\'\"";
    const char c = source_[at];
    if (c == '\n') return at + 1;
    if (const size_t known = kMarks.find(c); known != std::string_view::npos) {
      out += kMeanings[known];
      return at + 1;
    }
    if (c >= '0' && c <= '7') {
      uint32_t value = 0;
      size_t end = at;
      while (end < source_.size() && end < at + 3 && source_[end] >= '0' && source_[end] <= '7')
        value = value * 8 + static_cast<uint32_t>(source_[end++] - '0');
      tokenizer::append_utf8(value, out);
      return end;
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      if (c == 'N') fail("\\N{...} in a string is not supported");
      out += '\\';
      return at;
    }
    uint32_t value = code_unit(at + 1, digits);
    at += 1 + digits;
    if (value >= 0xd800 && value < 0xdc00 && source_.compare(at, 2, "\\u") == 0) fail("surrogates in a string");
    if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
      fail(fmt::format("\\{}{:0{}x} in a string is no character", c, value, digits));
    tokenizer::append_utf8(value, out);
    return at;
  }

  uint32_t code_unit(size_t at, size_t digits) const {
    uint32_t value = 0;
    const char *begin = source_.data() + at, *wanted = begin + digits;
    if (at + digits > source_.size()) fail("a string without its end");
    const auto [end, error] = std::from_chars(begin, wanted, value, 16);
    if (error != std::errc() || end != wanted) fail("a backslash in a string without its hexadecimal digits");
    return value;
  }

  void symbol(std::string& open) {
    static constexpr std::string_view kLong[] = {"//", "**", "==", "!=", ">=", "<="};
    static constexpr std::string_view kShort = "+-*/%~[](){}><=.:|,;";
    for (const std::string_view two : kLong) {
      if (!starts(two)) continue;
      add(Token::Kind::symbol, std::string(two));
      advance(2);
      return;
    }
    const char c = source_[at_];
    if (kShort.find(c) == std::string_view::npos) fail(fmt::format("unexpected character '{}'", c));
    if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) fail(fmt::format("unexpected '{}'", c));
      if (open.back() != c) fail(fmt::format("unexpected '{}', expected '{}'", c, open.back()));
      open.pop_back();
    }
    add(Token::Kind::symbol, std::string(1, c));
    advance(1);
  }

  std::string source_, name_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& name) {
  std::string storage;
  return Lexer(with_plain_lines(tokenizer::valid_utf8(source, storage)), name).run();
}

}  // namespace crumb::jinja
