#include "core/tokenizer/pre_split.h"

#include <algorithm>

namespace crumb::tokenizer {
namespace {

struct Stretch {
  Span span;
  bool is_match;
};

/// Matches, empty ones too, and what lies between them.
std::vector<Stretch> stretches(const std::vector<Span>& matches, size_t size, bool invert) {
  std::vector<Stretch> out;
  size_t from = 0;
  for (const Span& match : matches) {
    if (match.begin > from) out.push_back({{from, match.begin}, invert});
    out.push_back({match, !invert});
    from = match.end;
  }
  if (from < size) out.push_back({{from, size}, invert});
  return out;
}

/// Merges neighbours: `joins(previous is a match, this is a match)` says whether a stretch goes to the one before it.
template <class Joins>
void join_backward(const std::vector<Stretch>& in, const Joins& joins, std::vector<Span>& out) {
  bool previous = false;
  const size_t begin = out.size();
  for (const Stretch& stretch : in) {
    if (out.size() > begin && joins(previous, stretch.is_match))
      out.back().end = stretch.span.end;
    else
      out.push_back(stretch.span);
    previous = stretch.is_match;
  }
}

void merge_with_next(const std::vector<Stretch>& in, std::vector<Span>& out) {
  bool previous = false;
  const auto begin = static_cast<std::ptrdiff_t>(out.size());
  for (size_t i = in.size(); i-- > 0;) {
    const Stretch& stretch = in[i];
    if (static_cast<std::ptrdiff_t>(out.size()) > begin && stretch.is_match && !previous)
      out.back().begin = stretch.span.begin;
    else
      out.push_back(stretch.span);
    previous = stretch.is_match;
  }
  std::reverse(out.begin() + begin, out.end());
}

/// An empty match cuts the text where it stands; no piece comes of it.
void isolate(const std::vector<Span>& matches, size_t size, std::vector<Span>& out) {
  size_t from = 0;
  for (const Span& match : matches) {
    if (match.begin > from) out.push_back({from, match.begin});
    if (match.end > match.begin) out.push_back(match);
    from = match.end;
  }
  if (from < size) out.push_back({from, size});
}

/// The pieces of one text by one step, empty ones among them.
void arrange(const std::vector<Span>& matches, size_t size, const SplitStep& step, std::vector<Span>& out) {
  if (step.behavior == SplitBehavior::isolated) return isolate(matches, size, out);
  const std::vector<Stretch> in = stretches(matches, size, step.invert);
  switch (step.behavior) {
    case SplitBehavior::isolated:
      return;
    case SplitBehavior::removed:
      for (const Stretch& stretch : in) {
        if (!stretch.is_match) out.push_back(stretch.span);
      }
      return;
    case SplitBehavior::contiguous:
      return join_backward(
          in, [](bool previous, bool match) { return previous == match; }, out);
    case SplitBehavior::merged_with_previous:
      return join_backward(
          in, [](bool previous, bool match) { return match && !previous; }, out);
    case SplitBehavior::merged_with_next:
      return merge_with_next(in, out);
  }
}

std::string with_marks(std::string_view text, const Metaspace& metaspace, bool at_start) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  const bool begins_with_mark = text.starts_with(' ') || text.starts_with(metaspace.replacement);
  const bool prepends =
      metaspace.prepend == Metaspace::Prepend::always || (metaspace.prepend == Metaspace::Prepend::first && at_start);
  if (prepends && !begins_with_mark) out += metaspace.replacement;
  for (const char c : text) {
    if (c == ' ')
      out += metaspace.replacement;
    else
      out += c;
  }
  return out;
}

/// In batches that stay in the cache.
void split_by_scanner(Scanner scanner, UnicodeTables tables, std::string_view text,
                      const PreSplitter::Consumer& consume) {
  constexpr size_t kBatch = 1024;
  std::vector<Span> pieces;
  pieces.reserve(kBatch);
  for (size_t begin = 0; begin < text.size();) {
    pieces.clear();
    begin = scan(scanner, tables, text, begin, kBatch, pieces);
    consume(text, pieces);
  }
}

}  // namespace

std::string escape_pattern(std::string_view literal) {
  constexpr std::string_view kMeta = R"(\.+*?()|[]{}^$#&-~)";
  std::string out;
  for (const char c : literal) {
    if (kMeta.find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

PreSplitter::PreSplitter(PreSplit description, bool use_scanners) : description_(std::move(description)) {
  std::vector<SplitStep> steps = description_.steps;
  if (description_.metaspace && description_.metaspace->split) {
    steps.insert(steps.begin(),
                 {escape_pattern(description_.metaspace->replacement), SplitBehavior::merged_with_next, false});
  }
  for (SplitStep& step : steps) {
    // Scanners cut everything into matches: only there all of `isolated` and `invert` mean the same.
    const bool covers = use_scanners && step.behavior == SplitBehavior::isolated;
    const Scanner scanner = covers ? scanner_for(step.pattern) : Scanner::none;
    std::optional<Regex> regex;
    if (scanner == Scanner::none) regex.emplace(step.pattern, description_.tables);
    steps_.push_back({std::move(step), scanner, std::move(regex)});
  }
}

void PreSplitter::split(std::string_view text, bool at_start, const Consumer& consume) const {
  std::string storage;
  if (description_.metaspace) text = storage = with_marks(text, *description_.metaspace, at_start);
  if (description_.prefix_space && !text.starts_with(' ')) text = storage = " " + std::string(text);
  if (steps_.size() == 1 && steps_[0].scanner != Scanner::none)
    return split_by_scanner(steps_[0].scanner, description_.tables, text, consume);
  std::vector<Span> before = {{0, text.size()}};
  std::vector<Span> after;
  for (const Step& step : steps_) {
    after.clear();
    apply(step, text, before, after);
    before.swap(after);
  }
  consume(text, before);
}

void PreSplitter::apply(const Step& step, std::string_view text, const std::vector<Span>& pieces,
                        std::vector<Span>& out) const {
  std::optional<Regex::Matcher> matcher;
  if (step.regex) matcher.emplace(*step.regex);
  std::vector<Span> matches;
  for (const Span& piece : pieces) {
    const std::string_view part = text.substr(piece.begin, piece.end - piece.begin);
    const size_t first = out.size();
    if (matcher) {
      matches.clear();
      matcher->find_all(part, matches);
      arrange(matches, part.size(), step.description, out);
      const auto is_empty = [](const Span& span) { return span.begin == span.end; };
      out.erase(std::remove_if(out.begin() + static_cast<std::ptrdiff_t>(first), out.end(), is_empty), out.end());
    } else {
      scan(step.scanner, description_.tables, part, 0, SIZE_MAX, out);
    }
    for (size_t i = first; i < out.size(); ++i) {
      out[i].begin += piece.begin;
      out[i].end += piece.begin;
    }
  }
}

}  // namespace crumb::tokenizer
