#include "core/tokenizer/unicode.h"

#include <utf8proc.h>

#include <array>
#include <cstring>

namespace crumb::tokenizer {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

CharClass class_of_category(uint32_t code_point) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::number;
    default:
      return CharClass::other;
  }
}

std::array<CharClass, 256> latin1_classes() {
  std::array<CharClass, 256> classes{};
  for (uint32_t c = 0; c < 256; ++c) classes[c] = is_space(c) ? CharClass::space : class_of_category(c);
  return classes;
}

/// Range of the second byte after `lead`; {1, 0} (empty) where `lead` cannot start a sequence of several bytes.
std::pair<unsigned char, unsigned char> second_byte_range(unsigned char lead) {
  if (lead < 0xc2 || lead > 0xf4) return {1, 0};
  if (lead == 0xe0) return {0xa0, 0xbf};
  if (lead == 0xed) return {0x80, 0x9f};
  if (lead == 0xf0) return {0x90, 0xbf};
  if (lead == 0xf4) return {0x80, 0x8f};
  return {0x80, 0xbf};
}

/// Bytes at the start that are ASCII, counted eight at a time.
size_t ascii_prefix(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    if ((word & 0x8080808080808080) != 0) break;
  }
  while (i < text.size() && static_cast<unsigned char>(text[i]) < 0x80) ++i;
  return i;
}

size_t valid_prefix(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    i += ascii_prefix(text.substr(i));
    if (i == text.size()) break;
    const Utf8Sequence next = next_utf8(text.substr(i));
    if (next.state != Utf8Sequence::State::valid) break;
    i += next.size;
  }
  return i;
}

}  // namespace

void append_utf8(uint32_t c, std::string& out) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

Utf8Sequence next_utf8(std::string_view text) {
  using State = Utf8Sequence::State;
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {1, State::valid};
  const auto [low, high] = second_byte_range(lead);
  if (low > high) return {1, State::invalid};
  const size_t size = utf8_size(text[0]);
  for (size_t i = 1; i < size; ++i) {
    if (i == text.size()) return {i, State::incomplete};
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool fits = i == 1 ? byte >= low && byte <= high : is_continuation(text[i]);
    if (!fits) return {i, State::invalid};
  }
  return {size, State::valid};
}

std::string_view valid_utf8(std::string_view text, std::string& storage) {
  size_t valid = valid_prefix(text);
  if (valid == text.size()) return text;
  storage.clear();
  while (true) {
    storage.append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) return storage;
    storage.append(kReplacement);
    text.remove_prefix(next_utf8(text).size);
    valid = valid_prefix(text);
  }
}

bool is_ascii(std::string_view text) { return ascii_prefix(text) == text.size(); }

bool is_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
         c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_word(uint32_t c) {
  const bool circled_letter = (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
                              (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
  if (circled_letter || c == 0x200c || c == 0x200d) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC:
      return true;
    case UTF8PROC_CATEGORY_NO:
      return false;
    default:
      return class_of_category(c) != CharClass::other;
  }
}

CharClass char_class(uint32_t c) {
  static const std::array<CharClass, 256> latin1 = latin1_classes();
  if (c < 256) return latin1[c];
  return is_space(c) ? CharClass::space : class_of_category(c);
}

}  // namespace crumb::tokenizer
