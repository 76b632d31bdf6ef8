// UTF-8 and the character classes that the splits of tokenizers are written in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace crumb::tokenizer {

struct CodePoint {
  uint32_t value = 0;
  uint32_t size = 0;  // bytes
};

/// The character at `p`, which must be the start of a well-formed sequence.
inline CodePoint decode_utf8(const char* p) {
  const auto byte = [p](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(p[i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xe0) return {(lead & 0x1f) << 6 | (byte(1) & 0x3f), 2};
  if (lead < 0xf0) return {(lead & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f), 4};
}

/// Bytes of the character that starts with `lead`.
inline size_t utf8_size(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

inline bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

void append_utf8(uint32_t code_point, std::string& out);

/// What stands at the start of a byte string.
struct Utf8Sequence {
  enum class State {
    valid,
    invalid,
    incomplete
  };                // incomplete: well-formed as far as it goes, but the text ends inside
  size_t size = 0;  // invalid, incomplete: of the maximal subpart
  State state = State::valid;
};
/// `text` must not be empty. Well-formedness: The Unicode Standard, table 3-7.
Utf8Sequence next_utf8(std::string_view text);

/// `text` itself where it is valid UTF-8, else a copy in `storage` with U+FFFD for every maximal ill-formed part, as
/// Python's bytes.decode(errors="replace") does.
std::string_view valid_utf8(std::string_view text, std::string& storage);

bool is_ascii(std::string_view text);

/// Whose tables of characters: those of the `tokenizers` package (Unicode 16), or those of llama.cpp (15.1).
enum class UnicodeTables { newest, llamacpp };

/// Classes of the GPT-2 family of splits: \p{L}, \p{N}, \s, and everything else (marks, punctuation, symbols,
/// controls).
enum class CharClass : uint8_t { other, letter, number, space };
CharClass char_class(uint32_t code_point, UnicodeTables tables = UnicodeTables::newest);

/// Characters that came with Unicode 15 and 16, or changed their classes since 14, the version of the tables at hand
/// (utf8proc, Oniguruma), are read as an older character of the same classes and the same number of bytes.
uint32_t known_character(uint32_t code_point, UnicodeTables tables = UnicodeTables::newest);
/// `text` itself where it has no such characters, else a copy in `storage` with all of them replaced.
std::string_view with_known_characters(std::string_view text, UnicodeTables tables, std::string& storage);

/// \s of Oniguruma: the property White_Space.
bool is_space(uint32_t code_point);
/// \w of Unicode Technical Standard 18: alphabetic characters, marks, decimal numbers, connector punctuation, joiners.
bool is_word(uint32_t code_point);

}  // namespace crumb::tokenizer
