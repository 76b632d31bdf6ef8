// Added tokens ("<|endoftext|>"): text that becomes one id before it is normalized, split or merged.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/tokenizer/description.h"
#include "core/tokenizer/regex.h"

namespace crumb::tokenizer {

/// A token that may begin inside another and end behind it, and that other: there llama.cpp (the longest of the text
/// first) and `tokenizers` (the leftmost first) read texts differently. Nothing where no two do.
std::optional<std::pair<std::string, std::string>> find_overlap(const std::vector<AddedToken>& tokens);

class AddedTokens {
 public:
  explicit AddedTokens(std::vector<AddedToken> tokens, Description::Rules rules = Description::Rules::tokenizers);

  struct Found {
    Span span;  // with the white space it takes
    TokenId id = 0;
  };
  /// In order, without overlap: the leftmost match first, of those the longest; by llama.cpp's rules the longest token
  /// of the whole text first. parse_special = false: special tokens stay text.
  void find_all(std::string_view text, bool parse_special, std::vector<Found>& found) const;

 private:
  const AddedToken* longest_at(std::string_view text) const;
  bool can_overlap() const;
  void find_longest_first(std::string_view text, bool parse_special, std::vector<Found>& found) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string_view, size_t> by_content_;
  std::array<std::vector<size_t>, 256> sizes_;  // by first byte: lengths of the tokens, longest first
  std::vector<size_t> by_size_;                 // tokens, longest first; only where that may matter
};

}  // namespace crumb::tokenizer
