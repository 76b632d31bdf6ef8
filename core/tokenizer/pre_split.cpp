#include "core/tokenizer/pre_split.h"

#include <algorithm>
#include <cctype>

namespace crumb::tokenizer {
namespace {

struct Stretch {
  Span span;
  bool is_match;
};

/// Matches and what lies between them.
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

void isolate(const std::vector<Span>& matches, size_t size, std::vector<Span>& out) {
  size_t from = 0;
  for (const Span& match : matches) {
    if (match.begin > from) out.push_back({from, match.begin});
    out.push_back(match);
    from = match.end;
  }
  if (from < size) out.push_back({from, size});
}

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
void split_by_scanner(Scanner scanner, std::string_view text, const PreSplitter::Consumer& consume) {
  constexpr size_t kBatch = 1024;
  std::vector<Span> pieces;
  pieces.reserve(kBatch);
  for (size_t begin = 0; begin < text.size();) {
    pieces.clear();
    begin = scan(scanner, text, begin, kBatch, pieces);
    consume(text, pieces);
  }
}

}  // namespace

std::string escape_pattern(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    const bool plain = static_cast<unsigned char>(c) >= 0x80 || std::isalnum(static_cast<unsigned char>(c)) != 0;
    if (!plain) out += '\\';
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
    if (scanner == Scanner::none) regex.emplace(step.pattern);
    steps_.push_back({std::move(step), scanner, std::move(regex)});
  }
}

void PreSplitter::split(std::string_view text, bool at_start, const Consumer& consume) const {
  std::string storage;
  if (description_.metaspace) text = storage = with_marks(text, *description_.metaspace, at_start);
  if (description_.prefix_space && !text.starts_with(' ')) text = storage = " " + std::string(text);
  if (steps_.size() == 1 && steps_[0].scanner != Scanner::none)
    return split_by_scanner(steps_[0].scanner, text, consume);
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
                        std::vector<Span>& out) {
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
    } else {
      scan(step.scanner, part, 0, SIZE_MAX, out);
    }
    for (size_t i = first; i < out.size(); ++i) {
      out[i].begin += piece.begin;
      out[i].end += piece.begin;
    }
  }
}

// Sources: the tokenizer.json files of the families; the names are those of llama.cpp's llama-vocab.cpp.
const std::vector<NamedSplit>& named_splits() {
  static const std::string digit = R"(\p{N})";
  static const std::string three_digits = R"(\p{N}{1,3})";
  static const std::string deepseek_letters =
      R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)";
  static const std::vector<std::string> deepseek_llm = {
      R"([\r\n])", deepseek_letters, R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)", R"(\s+$)", R"([一-龥ࠀ-一가-퟿]+)",
      R"(\p{N}+)"};
  static const std::vector<std::string> deepseek_v3 = {
      three_digits, R"([一-龥぀-ゟ゠-ヿ]+)",
      R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
  static const std::vector<NamedSplit> splits = {
      {"gpt-2", {kGpt2Pattern}},
      {"phi-2", {kGpt2Pattern}},
      {"llama-bpe", {kLlama3Pattern}, true, false, true},
      {"llama3", {kLlama3Pattern}, true, false, true},
      {"llama-v3", {kLlama3Pattern}, true, false, true},
      {"dbrx", {kLlama3Pattern}},
      {"smaug-bpe", {kLlama3Pattern}},
      {"qwen2", {kQwen2Pattern}, false, true},
      {"deepseek-r1-qwen", {kQwen2Pattern}, false, true},
      {"hunyuan", {kQwen2Pattern}},
      {"stablelm2", {kQwen2Pattern}},
      {"smollm", {digit, kGpt2Pattern}},
      {"starcoder", {digit, kGpt2Pattern}},
      {"refact", {digit, kGpt2Pattern}},
      {"command-r", {digit, kGpt2Pattern}},
      {"deepseek-llm", deepseek_llm},
      {"hunyuan-dense", deepseek_v3},
      {"deepseek-v3", deepseek_v3},
      {"default",
       {R"([\p{P}\$\+<=>\^~\|]+)", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))",
        R"(\p{N}+)", R"([0-9][0-9][0-9])"}},
  };
  return splits;
}

const NamedSplit* find_named_split(std::string_view name) {
  for (const NamedSplit& split : named_splits()) {
    if (split.name == name) return &split;
  }
  return nullptr;
}

const NamedSplit* name_of_split(const PreSplit& split, bool ignore_merges, bool nfc) {
  if (split.metaspace || split.prefix_space) return nullptr;
  std::vector<std::string> patterns;
  for (const SplitStep& step : split.steps) {
    if (step.behavior != SplitBehavior::isolated || step.invert) return nullptr;
    patterns.push_back(canonical_pattern(step.pattern));
  }
  const NamedSplit* found = nullptr;
  for (const NamedSplit& named : named_splits()) {
    if (named.patterns != patterns || named.ignore_merges != ignore_merges) continue;
    if (found == nullptr || (found->nfc != nfc && named.nfc == nfc)) found = &named;
  }
  return found;
}

}  // namespace crumb::tokenizer
