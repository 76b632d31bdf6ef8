#include "core/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <vector>

namespace crumb::tokenizer {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

struct NewCharacters {
  uint32_t first, last;
  uint32_t like;  // an older character of the same general category, script Han or not, case, alphabetic or not
  int version;    // of Unicode that brought them; 14: they are older, but some class changed since
};

// Source: The Unicode Standard, versions 15.0 to 16.0, UnicodeData.txt and DerivedCoreProperties.txt.
// clang-format off
constexpr NewCharacters kNewCharacters[] = {
    {0x363, 0x36f, 0x5b0, 14}, {0x897, 0x897, 0x8d4, 16}, {0xc04, 0xc04, 0xc03, 14}, {0xcf3, 0xcf3, 0xd00, 15},
    {0xece, 0xece, 0xecc, 15}, {0xf82, 0xf83, 0xf81, 14}, {0x10fc, 0x10fc, 0x1d2c, 14}, {0x1b4e, 0x1b4f, 0x1b5a, 16},
    {0x1b7f, 0x1b7f, 0x1b7e, 16}, {0x1c89, 0x1c89, 0x1c90, 16}, {0x1c8a, 0x1c8a, 0x1c88, 16},
    {0x1dd3, 0x1de6, 0x1de7, 14}, {0x2427, 0x2429, 0x2426, 16}, {0x2ffc, 0x2fff, 0x2ffb, 15},
    {0x31e4, 0x31e5, 0x31e3, 16}, {0x31ef, 0x31ef, 0x31e3, 15}, {0xa7cb, 0xa7cc, 0xa7c9, 16},
    {0xa7cd, 0xa7cd, 0xa7ca, 16}, {0xa7da, 0xa7da, 0xa7d8, 16}, {0xa7db, 0xa7db, 0xa7d9, 16},
    {0xa7dc, 0xa7dc, 0xa7d8, 16}, {0xa7f2, 0xa7f4, 0xa7f8, 14}, {0xab69, 0xab69, 0xab5f, 14},
    {0x105c0, 0x105f3, 0x10600, 16}, {0x10d40, 0x10d49, 0x10d39, 16}, {0x10d4a, 0x10d4d, 0x10d23, 16},
    {0x10d4e, 0x10d4e, 0x10782, 16}, {0x10d4f, 0x10d4f, 0x10d23, 16}, {0x10d50, 0x10d65, 0x10cb2, 16},
    {0x10d69, 0x10d69, 0x10d27, 16}, {0x10d6a, 0x10d6d, 0x10f46, 16}, {0x10d6e, 0x10d6e, 0x10ead, 16},
    {0x10d6f, 0x10d6f, 0x10782, 16}, {0x10d70, 0x10d85, 0x10cf2, 16}, {0x10d8e, 0x10d8f, 0x10ac8, 16},
    {0x10ec2, 0x10ec4, 0x10eb1, 16}, {0x10efc, 0x10efc, 0x10eac, 16}, {0x10efd, 0x10eff, 0x10f46, 15},
    {0x11080, 0x11081, 0x11082, 14}, {0x1123f, 0x11240, 0x1122b, 15}, {0x11241, 0x11241, 0x1123e, 15},
    {0x11380, 0x11389, 0x11361, 16}, {0x1138b, 0x1138b, 0x11361, 16}, {0x1138e, 0x1138e, 0x11361, 16},
    {0x11390, 0x113b5, 0x11361, 16}, {0x113b7, 0x113b7, 0x11400, 16}, {0x113b8, 0x113c0, 0x11363, 16},
    {0x113c2, 0x113c2, 0x11363, 16}, {0x113c5, 0x113c5, 0x11363, 16}, {0x113c7, 0x113ca, 0x11363, 16},
    {0x113cc, 0x113cd, 0x11363, 16}, {0x113ce, 0x113d0, 0x11374, 16}, {0x113d1, 0x113d1, 0x11400, 16},
    {0x113d2, 0x113d2, 0x11374, 16}, {0x113d3, 0x113d3, 0x11400, 16}, {0x113d4, 0x113d5, 0x1144b, 16},
    {0x113d7, 0x113d8, 0x1144b, 16}, {0x113e1, 0x113e2, 0x11442, 16}, {0x116d0, 0x116e3, 0x116c9, 16},
    {0x11b00, 0x11b09, 0x11aa2, 15}, {0x11bc0, 0x11be0, 0x11c00, 16}, {0x11be1, 0x11be1, 0x11c41, 16},
    {0x11bf0, 0x11bf9, 0x11c50, 16}, {0x11f00, 0x11f01, 0x11ef6, 15}, {0x11f02, 0x11f02, 0x11ef2, 15},
    {0x11f03, 0x11f03, 0x11ef6, 15}, {0x11f04, 0x11f10, 0x11ef2, 15}, {0x11f12, 0x11f33, 0x11ef2, 15},
    {0x11f34, 0x11f3a, 0x11ef6, 15}, {0x11f3e, 0x11f40, 0x11ef6, 15}, {0x11f41, 0x11f42, 0x11d97, 15},
    {0x11f43, 0x11f4f, 0x11ef8, 15}, {0x11f50, 0x11f59, 0x11da9, 15}, {0x11f5a, 0x11f5a, 0x11d97, 16},
    {0x1342f, 0x1342f, 0x1342e, 15}, {0x13439, 0x1343f, 0x13438, 16}, {0x13440, 0x13440, 0x11d97, 15},
    {0x13441, 0x13446, 0x1342e, 15}, {0x13447, 0x13455, 0x11d97, 15}, {0x13460, 0x143fa, 0x1342e, 16},
    {0x16100, 0x1611d, 0x16800, 16}, {0x1611e, 0x1612e, 0x16f4f, 16}, {0x1612f, 0x1612f, 0x16af0, 16},
    {0x16130, 0x16139, 0x16a60, 16}, {0x16d40, 0x16d42, 0x16b43, 16}, {0x16d43, 0x16d6a, 0x16b8f, 16},
    {0x16d6b, 0x16d6c, 0x16b43, 16}, {0x16d6d, 0x16d6f, 0x16e97, 16}, {0x16d70, 0x16d79, 0x16b59, 16},
    {0x18cff, 0x18cff, 0x18d00, 16}, {0x1b132, 0x1b132, 0x1b122, 15}, {0x1b155, 0x1b155, 0x1b152, 15},
    {0x1cc00, 0x1ccef, 0x1cf50, 16}, {0x1ccf0, 0x1ccf9, 0x1d7ce, 16}, {0x1cd00, 0x1ceb3, 0x1cf50, 16},
    {0x1d2c0, 0x1d2d3, 0x1d2e0, 15}, {0x1df25, 0x1df2a, 0x1df1e, 15}, {0x1e030, 0x1e06d, 0x107ba, 15},
    {0x1e08f, 0x1e08f, 0x1e02a, 15}, {0x1e4d0, 0x1e4ea, 0x1e2eb, 15}, {0x1e4eb, 0x1e4eb, 0x1e13d, 15},
    {0x1e4ec, 0x1e4ef, 0x1e2ef, 15}, {0x1e4f0, 0x1e4f9, 0x1e2f9, 15}, {0x1e5d0, 0x1e5ed, 0x1e7e0, 16},
    {0x1e5ee, 0x1e5ef, 0x1e8d0, 16}, {0x1e5f0, 0x1e5f0, 0x1e7e0, 16}, {0x1e5f1, 0x1e5fa, 0x1e2f9, 16},
    {0x1e5ff, 0x1e5ff, 0x1e95e, 16}, {0x1f6dc, 0x1f6dc, 0x1f6dd, 15}, {0x1f774, 0x1f776, 0x1f773, 15},
    {0x1f77b, 0x1f77f, 0x1f780, 15}, {0x1f7d9, 0x1f7d9, 0x1f7d8, 15}, {0x1f8b2, 0x1f8bb, 0x1f8b1, 16},
    {0x1f8c0, 0x1f8c1, 0x1f8b1, 16}, {0x1fa75, 0x1fa77, 0x1fa74, 15}, {0x1fa87, 0x1fa88, 0x1fa86, 15},
    {0x1fa89, 0x1fa89, 0x1fa86, 16}, {0x1fa8f, 0x1fa8f, 0x1fa90, 16}, {0x1faad, 0x1faaf, 0x1faac, 15},
    {0x1fabb, 0x1fabd, 0x1faba, 15}, {0x1fabe, 0x1fabe, 0x1fac0, 16}, {0x1fabf, 0x1fabf, 0x1fac0, 15},
    {0x1fac6, 0x1fac6, 0x1fac5, 16}, {0x1face, 0x1facf, 0x1fad0, 15}, {0x1fada, 0x1fadb, 0x1fad9, 15},
    {0x1fadc, 0x1fadc, 0x1fad9, 16}, {0x1fadf, 0x1fadf, 0x1fae0, 16}, {0x1fae8, 0x1fae8, 0x1fae7, 15},
    {0x1fae9, 0x1fae9, 0x1fae7, 16}, {0x1faf7, 0x1faf8, 0x1faf6, 15}, {0x1fbcb, 0x1fbef, 0x1fbca, 16},
    {0x2b739, 0x2b739, 0x2b738, 15}, {0x2ebf0, 0x2ee5d, 0x2ebe0, 15}, {0x31350, 0x323af, 0x3134a, 15},
};
// clang-format on

/// Entry of a character, or nullptr.
const NewCharacters* find_new(uint32_t c) {
  static const std::vector<bool> pages = [] {  // most blocks of 256 have none
    std::vector<bool> has_new(0x1100);
    for (const NewCharacters& range : kNewCharacters) {
      for (uint32_t page = range.first >> 8; page <= range.last >> 8; ++page) has_new[page] = true;
    }
    return has_new;
  }();
  if (c > 0x10ffff || !pages[c >> 8]) return nullptr;
  const auto* const it =
      std::upper_bound(std::begin(kNewCharacters), std::end(kNewCharacters), c,
                       [](uint32_t value, const NewCharacters& range) { return value < range.first; });
  if (it == std::begin(kNewCharacters) || c > (it - 1)->last) return nullptr;
  return it - 1;
}

utf8proc_category_t category(uint32_t code_point, UnicodeTables tables) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(known_character(code_point, tables)));
}

CharClass class_of_category(uint32_t code_point, UnicodeTables tables) {
  switch (category(code_point, tables)) {
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
  for (uint32_t c = 0; c < 256; ++c)
    classes[c] = is_space(c) ? CharClass::space : class_of_category(c, UnicodeTables::newest);
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

uint32_t known_character(uint32_t c, UnicodeTables tables) {
  const NewCharacters* entry = find_new(c);
  if (entry == nullptr) return c;
  if (tables == UnicodeTables::llamacpp && entry->version == 16) return c < 0x10000 ? 0xfdd0 : 0x1fffe;  // unassigned
  return entry->like;
}

std::string_view with_known_characters(std::string_view text, UnicodeTables tables, std::string& storage) {
  bool copied = false;
  for (size_t i = ascii_prefix(text); i < text.size();) {
    const CodePoint c = decode_utf8(text.data() + i);
    if (const uint32_t known = c.size > 1 ? known_character(c.value, tables) : c.value; known != c.value) {
      if (!copied) storage = text;
      copied = true;
      std::string spelled;
      append_utf8(known, spelled);
      storage.replace(i, c.size, spelled);
    }
    i += c.size;
  }
  return copied ? storage : text;
}

bool is_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
         c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_word(uint32_t c) {
  const bool circled_letter = (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
                              (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
  if (circled_letter || c == 0x200c || c == 0x200d) return true;
  switch (category(c, UnicodeTables::newest)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC:
      return true;
    case UTF8PROC_CATEGORY_NO:
      return false;
    default:
      return class_of_category(c, UnicodeTables::newest) != CharClass::other;
  }
}

CharClass char_class(uint32_t c, UnicodeTables tables) {
  static const std::array<CharClass, 256> latin1 = latin1_classes();
  if (c < 256) return latin1[c];
  return is_space(c) ? CharClass::space : class_of_category(c, tables);
}

}  // namespace crumb::tokenizer
