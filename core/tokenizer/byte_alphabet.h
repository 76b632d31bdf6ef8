// GPT-2's byte alphabet: 256 printable characters, one for each byte, in which the vocabularies of byte-level BPE are
// spelled.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace crumb::tokenizer {

/// The character for a byte, as UTF-8.
std::string_view char_of_byte(uint8_t byte);
/// The byte of a character; -1 if it is not in the alphabet.
int byte_of_char(uint32_t code_point);
/// The bytes a piece spells, unless one of its characters is not in the alphabet.
std::optional<std::string> bytes_of_piece(std::string_view piece);

}  // namespace crumb::tokenizer
