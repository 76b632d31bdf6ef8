#include "core/tokenizer/added_tokens.h"

#include <algorithm>
#include <numeric>

#include "core/tokenizer/unicode.h"

namespace crumb::tokenizer {
namespace {

constexpr size_t kLong = 256;  // bytes of a token; looking for overlaps costs the square of it

/// The character that ends at `end` (> 0).
uint32_t char_before(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (is_continuation(text[begin])) --begin;
  return decode_utf8(text.data() + begin).value;
}

bool stands_alone(std::string_view text, Span span) {
  const bool word_before = span.begin > 0 && is_word(char_before(text, span.begin));
  const bool word_after = span.end < text.size() && is_word(decode_utf8(text.data() + span.end).value);
  return !word_before && !word_after;
}

size_t skip_space_back(std::string_view text, size_t end, size_t stop) {
  while (end > stop && is_space(char_before(text, end))) {
    do --end;
    while (is_continuation(text[end]));
  }
  return end;
}

size_t skip_space(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const CodePoint c = decode_utf8(text.data() + begin);
    if (!is_space(c.value)) break;
    begin += c.size;
  }
  return begin;
}

}  // namespace

std::optional<std::pair<std::string, std::string>> find_overlap(const std::vector<AddedToken>& tokens) {
  std::unordered_map<std::string_view, const AddedToken*> beginnings;
  for (const AddedToken& token : tokens) {
    const std::string_view content = token.content;
    for (size_t size = 1; size < std::min(content.size(), kLong); ++size)
      beginnings.emplace(content.substr(0, size), &token);
  }
  for (const AddedToken& token : tokens) {
    const std::string_view content = token.content;
    for (size_t begin = content.size() > kLong ? content.size() - kLong + 1 : 1; begin < content.size(); ++begin) {
      const auto other = beginnings.find(content.substr(begin));
      if (other != beginnings.end() && other->second != &token) return std::pair{token.content, other->second->content};
    }
  }
  return std::nullopt;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, Description::Rules rules) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    if (content.empty()) continue;
    by_content_.emplace(content, i);
    auto& sizes = sizes_[static_cast<unsigned char>(content[0])];
    if (std::find(sizes.begin(), sizes.end(), content.size()) == sizes.end()) sizes.push_back(content.size());
  }
  for (auto& sizes : sizes_) std::sort(sizes.rbegin(), sizes.rend());
  if (rules == Description::Rules::tokenizers || !can_overlap()) return;
  by_size_.resize(tokens_.size());
  std::iota(by_size_.begin(), by_size_.end(), size_t{0});
  // Not stable_sort: llama.cpp sorts like this, so tokens of one size get its order.
  std::sort(by_size_.begin(), by_size_.end(),
            [this](size_t a, size_t b) { return tokens_[a].content.size() > tokens_[b].content.size(); });
}

/// Whether one token may begin inside another and end after it, or takes white space: only there the order in which
/// tokens are looked for matters.
bool AddedTokens::can_overlap() const {
  const auto may = [](const AddedToken& token) { return token.lstrip || token.rstrip || token.content.size() > kLong; };
  return std::any_of(tokens_.begin(), tokens_.end(), may) || find_overlap(tokens_).has_value();
}

/// Source: llama.cpp's llama-vocab.cpp, tokenizer_st_partition.
void AddedTokens::find_longest_first(std::string_view text, bool parse_special, std::vector<Found>& found) const {
  const auto is_blank = [&](size_t i) { return text[i] == ' ' || (text[i] >= '\t' && text[i] <= '\r'); };
  std::vector<Span> free = {{0, text.size()}}, rest;
  for (const size_t index : by_size_) {
    const AddedToken& token = tokens_[index];
    if (token.content.empty() || (token.special && !parse_special)) continue;
    rest.clear();
    for (Span part : free) {
      for (size_t at = text.find(token.content, part.begin);
           at != std::string_view::npos && at + token.content.size() <= part.end;
           at = text.find(token.content, part.begin)) {
        Span span = {at, at + token.content.size()};
        while (token.lstrip && span.begin > part.begin && is_blank(span.begin - 1)) --span.begin;
        while (token.rstrip && span.end < part.end && is_blank(span.end)) ++span.end;
        if (span.begin > part.begin) rest.push_back({part.begin, span.begin});
        found.push_back({span, token.id});
        part.begin = span.end;
      }
      if (part.begin < part.end) rest.push_back(part);
    }
    free.swap(rest);
  }
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.span.begin < b.span.begin; });
}

const AddedToken* AddedTokens::longest_at(std::string_view text) const {
  for (const size_t size : sizes_[static_cast<unsigned char>(text[0])]) {
    if (size > text.size()) continue;
    const auto it = by_content_.find(text.substr(0, size));
    if (it != by_content_.end()) return &tokens_[it->second];
  }
  return nullptr;
}

void AddedTokens::find_all(std::string_view text, bool parse_special, std::vector<Found>& found) const {
  if (by_content_.empty()) return;
  if (!by_size_.empty()) return find_longest_first(text, parse_special, found);
  size_t taken = 0;  // end of the last match, white space included
  for (size_t i = 0; i < text.size();) {
    if (sizes_[static_cast<unsigned char>(text[i])].empty()) {
      ++i;
      continue;
    }
    const AddedToken* token = longest_at(text.substr(i));
    if (token == nullptr) {
      ++i;
      continue;
    }
    Span span = {i, i + token->content.size()};
    i = span.end;  // a match that is refused hides shorter ones inside it all the same
    if (token->special && !parse_special) continue;
    if (token->single_word && !stands_alone(text, span)) continue;
    if (token->lstrip) span.begin = skip_space_back(text, span.begin, taken);
    if (token->rstrip) span.end = skip_space(text, span.end);
    found.push_back({span, token->id});
    taken = span.end;
  }
}

}  // namespace crumb::tokenizer
