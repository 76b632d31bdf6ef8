#include "core/tokenizer/byte_alphabet.h"

#include <array>

#include "core/tokenizer/unicode.h"

namespace crumb::tokenizer {
namespace {

constexpr uint32_t kAlphabetEnd = 0x100 + 68;

/// Bytes that are printable in Latin-1 stand for themselves, the other 68 become U+0100, U+0101 ... in order.
struct Alphabet {
  std::array<std::string, 256> chars;
  std::array<int16_t, kAlphabetEnd> bytes;

  Alphabet() {
    bytes.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      const uint32_t code_point = printable ? byte : next++;
      append_utf8(code_point, chars[byte]);
      bytes[code_point] = static_cast<int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

std::string_view char_of_byte(uint8_t byte) { return alphabet().chars[byte]; }

int byte_of_char(uint32_t code_point) { return code_point < kAlphabetEnd ? alphabet().bytes[code_point] : -1; }

std::optional<std::string> bytes_of_piece(std::string_view piece) {
  std::string out;
  for (size_t i = 0; i < piece.size();) {
    const CodePoint c = decode_utf8(piece.data() + i);
    const int byte = byte_of_char(c.value);
    if (byte < 0) return std::nullopt;
    out += static_cast<char>(byte);
    i += c.size;
  }
  return out;
}

}  // namespace crumb::tokenizer
