// The common splits of byte-level BPE, written out by hand: the same pieces as their regular expressions, several times
// as fast.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/regex.h"

namespace crumb::tokenizer {

/// GPT-2 and Llama-3 splits are the two shapes; Qwen2 is Llama-3 with single digits.
enum class Scanner { none, gpt2, llama3, qwen2 };

extern const std::string kGpt2Pattern, kLlama3Pattern, kQwen2Pattern;

/// With escapes for the line breaks that some files hold as characters: equal patterns get one spelling.
std::string canonical_pattern(std::string_view pattern);
/// The scanner that gives the same pieces as the pattern, or none.
Scanner scanner_for(std::string_view pattern);

/// Appends pieces of `text` (valid UTF-8) from byte `begin` on, at most `max_pieces`; returns where it stopped.
/// Together the pieces cover the text.
size_t scan(Scanner scanner, std::string_view text, size_t begin, size_t max_pieces, std::vector<Span>& pieces);

}  // namespace crumb::tokenizer
