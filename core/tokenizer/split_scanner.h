// The common splits of byte-level BPE, written out by hand: the same pieces as their regular expressions, several times
// as fast.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/regex.h"

namespace crumb::tokenizer {

/// GPT-2 and Llama-3 splits are the two shapes; Qwen2 is Llama-3 with single digits. number: every number alone.
/// digit_groups: llama.cpp's cut of numbers into groups of three from their end; the first takes the text before it.
enum class Scanner { none, gpt2, llama3, qwen2, number, digit_groups };

extern const std::string kGpt2Pattern, kLlama3Pattern, kQwen2Pattern;
/// Of digit_groups, which is no regular expression.
extern const std::string kDigitGroups;

/// With escapes for the line breaks that some files hold as characters: equal patterns get one spelling.
std::string canonical_pattern(std::string_view pattern);
/// The scanner that gives the same pieces as the pattern, or none.
Scanner scanner_for(std::string_view pattern);

/// Appends pieces of `text` (valid UTF-8) from byte `begin` on, at most `max_pieces`; returns where it stopped.
/// Together the pieces cover the text. With the tables of llama.cpp a long s (U+017F) is no s either.
size_t scan(Scanner scanner, UnicodeTables tables, std::string_view text, size_t begin, size_t max_pieces,
            std::vector<Span>& pieces);

}  // namespace crumb::tokenizer
