#include "core/jinja/text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "core/tokenizer/unicode.h"

namespace crumb::jinja {
namespace {

using tokenizer::append_utf8;
using tokenizer::decode_utf8;
using tokenizer::is_continuation;

std::string reversed(std::string_view bytes) { return {bytes.rbegin(), bytes.rend()}; }

uint32_t value_of(std::string_view character) { return decode_utf8(character.data()).value; }

template <class Visit>
void for_each_character(std::string_view text, const Visit& visit) {
  for (size_t at = 0; at < text.size();) {
    const auto [value, size] = decode_utf8(text.data() + at);
    visit(value, text.substr(at, size));
    at += size;
  }
}

utf8proc_category_t category(uint32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

void append_upper(uint32_t c, std::string& out) {
  if (c == 0xdf)
    out += "SS";
  else
    append_utf8(static_cast<uint32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))), out);
}

bool is_cased(uint32_t c) {
  const auto kind = category(c);
  return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL || kind == UTF8PROC_CATEGORY_LT;
}

/// str.isprintable() of one character.
bool is_printable(uint32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}

bool is_line_end(uint32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

}  // namespace

int64_t length_of(std::string_view text) {
  return static_cast<int64_t>(text.size()) - std::count_if(text.begin(), text.end(), is_continuation);
}

std::vector<std::string_view> characters_of(std::string_view text) {
  std::vector<std::string_view> out;
  for_each_character(text, [&](uint32_t, std::string_view bytes) { out.push_back(bytes); });
  return out;
}

bool is_python_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

std::string_view strip(std::string_view text, Ends ends, std::optional<std::string_view> chars) {
  const auto goes = [&](std::string_view character) {
    return chars ? chars->find(character) != std::string_view::npos : is_python_space(value_of(character));
  };
  while (ends != Ends::right && !text.empty()) {
    const auto first = text.substr(0, tokenizer::utf8_size(text.front()));
    if (!goes(first)) break;
    text.remove_prefix(first.size());
  }
  while (ends != Ends::left && !text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && is_continuation(text[begin])) --begin;
    if (!goes(text.substr(begin))) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

std::vector<std::string_view> split_words(std::string_view text, int64_t most) {
  std::vector<std::string_view> out;
  text = strip(text, Ends::left);
  while (!text.empty()) {
    if (most >= 0 && static_cast<int64_t>(out.size()) == most) {
      out.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const auto [value, size] = decode_utf8(text.data() + end);
      if (is_python_space(value)) break;
      end += size;
    }
    out.push_back(text.substr(0, end));
    text = strip(text.substr(end), Ends::left);
  }
  return out;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator, int64_t most, bool from_right) {
  // From the right: the same from the left, both read backwards.
  const std::string backwards = from_right ? reversed(text) : "", mark = from_right ? reversed(separator) : "";
  const std::string_view source = from_right ? backwards : text, between = from_right ? mark : separator;
  std::vector<std::string_view> out;
  const auto add = [&](size_t begin, size_t end) {
    out.push_back(from_right ? text.substr(text.size() - end, end - begin) : text.substr(begin, end - begin));
  };
  size_t from = 0;
  while (most < 0 || static_cast<int64_t>(out.size()) < most) {
    const size_t at = find(source, between, from);
    if (at == std::string_view::npos) break;
    add(from, at);
    from = at + between.size();
  }
  add(from, text.size());
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const auto [value, size] = decode_utf8(text.data() + at);
    const size_t line_end = at;
    at += size;
    if (!is_line_end(value)) continue;
    if (value == '\r' && at < text.size() && text[at] == '\n') ++at;
    out.push_back(text.substr(begin, (keep_ends ? at : line_end) - begin));
    begin = at;
  }
  if (begin < text.size()) out.push_back(text.substr(begin));
  return out;
}

size_t find(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (part.empty()) return from;
  // memmem is linear, std::string_view::find may take the product of the sizes.
  const void* at = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return at == nullptr ? std::string_view::npos : static_cast<size_t>(static_cast<const char*>(at) - text.data());
}

size_t find_last(std::string_view text, std::string_view part) {
  const size_t at = find(reversed(text), reversed(part));
  return at == std::string_view::npos ? at : text.size() - at - part.size();
}

int64_t count(std::string_view text, std::string_view part) {
  if (part.empty()) return length_of(text) + 1;
  int64_t found = 0;
  for (size_t at = find(text, part); at != std::string_view::npos; at = find(text, part, at + part.size())) ++found;
  return found;
}

std::string to_upper(std::string_view text) {
  std::string out;
  for_each_character(text, [&](uint32_t c, std::string_view) { append_upper(c, out); });
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  const auto characters = characters_of(text);
  for (size_t i = 0; i < characters.size(); ++i) {
    const uint32_t c = value_of(characters[i]);
    const bool is_last = i + 1 == characters.size() || !is_cased(value_of(characters[i + 1]));
    if (c == 0x3a3 && i > 0 && is_last && is_cased(value_of(characters[i - 1])))
      out += "\u03c2";
    else if (c == 0x130)
      out += "i\u0307";
    else
      append_utf8(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
  }
  return out;
}

std::string capitalized(std::string_view text) {
  if (text.empty()) return "";
  const size_t size = tokenizer::utf8_size(text.front());
  std::string out;
  const uint32_t first = value_of(text);
  if (first == 0xdf)
    out = "Ss";
  else
    append_utf8(static_cast<uint32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(first))), out);
  return out + to_lower(text.substr(size));
}

std::string titled(std::string_view text) {
  const auto begins = [](uint32_t c) {
    return is_python_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  std::string out, word;
  const auto end_word = [&] {
    if (word.empty()) return;
    const size_t size = tokenizer::utf8_size(word.front());
    out += to_upper(std::string_view(word).substr(0, size)) + to_lower(std::string_view(word).substr(size));
    word.clear();
  };
  for_each_character(text, [&](uint32_t c, std::string_view bytes) {
    if (begins(c)) {
      end_word();
      out += bytes;
    } else {
      word += bytes;
    }
  });
  end_word();
  return out;
}

bool all_are(std::string_view text, const std::function<bool(uint32_t)>& is_in_class) {
  bool all = !text.empty();
  for_each_character(text, [&](uint32_t c, std::string_view) { all = all && is_in_class(c); });
  return all;
}

bool is_letter(uint32_t c) {
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }

bool is_lower(std::string_view text) {
  bool any = false, all = true;
  for_each_character(text, [&](uint32_t c, std::string_view) {
    if (!is_cased(c)) return;
    any = true;
    all = all && category(c) == UTF8PROC_CATEGORY_LL;
  });
  return any && all;
}

bool is_upper(std::string_view text) {
  bool any = false, all = true;
  for_each_character(text, [&](uint32_t c, std::string_view) {
    if (!is_cased(c)) return;
    any = true;
    all = all && category(c) == UTF8PROC_CATEGORY_LU;
  });
  return any && all;
}

std::string text_repr(std::string_view text) {
  const bool has_single = text.find('\'') != text.npos, has_double = text.find('"') != text.npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for_each_character(text, [&](uint32_t c, std::string_view bytes) {
    if (c == static_cast<uint32_t>(quote) || c == '\\')
      (out += '\\') += bytes;
    else if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\t')
      out += "\\t";
    else if (is_printable(c))
      out += bytes;
    else if (c < 0x100)
      out += fmt::format("\\x{:02x}", c);
    else
      out += c < 0x10000 ? fmt::format("\\u{:04x}", c) : fmt::format("\\U{:08x}", c);
  });
  return out + quote;
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));  // d[.ddd]e[+-]dd
  const size_t e = shortest.find('e');
  const int exponent = std::stoi(std::string(shortest.substr(e + 1)));
  if (exponent < -4 || exponent >= 16)
    return fmt::format("{}e{}{:02}", shortest.substr(0, e), exponent < 0 ? '-' : '+', std::abs(exponent));
  const auto fixed_end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr;
  std::string fixed(buffer, fixed_end);
  return fixed.find('.') == fixed.npos ? fixed + ".0" : fixed;
}

}  // namespace crumb::jinja
