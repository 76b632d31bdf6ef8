#include "core/tokenizer/regex.h"

#include <oniguruma.h>

#include <algorithm>
#include <mutex>

#include "core/common/error.h"
#include "core/tokenizer/unicode.h"

namespace crumb::tokenizer {
namespace {

constexpr size_t kLongestPattern = 65'536;
constexpr unsigned int kDeepestNesting = 1000;
// As many steps back as Oniguruma allows by default, so also in the `tokenizers` package.
constexpr unsigned long kRetriesOfMatch = 10'000'000;

void start_engine() {
  static std::once_flag once;
  std::call_once(once, [] {
    OnigEncoding encoding = ONIG_ENCODING_UTF8;
    onig_initialize(&encoding, 1);
    onig_set_parse_depth_limit(kDeepestNesting);
  });
}

std::string text_of_error(int code, OnigErrorInfo* info) {
  OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int size = info != nullptr ? onig_error_code_to_str(text, code, info) : onig_error_code_to_str(text, code);
  return {reinterpret_cast<const char*>(text), static_cast<size_t>(size)};
}

/// [[:punct:]] holds the symbols too since Oniguruma 6.9.9, which the `tokenizers` package is built with.
std::string with_symbols_in_punct(std::string_view pattern) {
  std::string out;
  int depth = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view rest = pattern.substr(i);
    if (depth > 0 && rest.starts_with("[:punct:]")) {
      out += "\\p{P}\\p{S}";
      i += 8;
    } else if (depth > 0 && rest.starts_with("[:^punct:]")) {
      out += "[^\\p{P}\\p{S}]";
      i += 9;
    } else if (depth > 0 && rest.starts_with("[:") && rest.find(":]") != std::string_view::npos) {
      const size_t size = rest.find(":]") + 2;
      out += rest.substr(0, size);
      i += size - 1;
    } else {
      out += rest[0];
      if (rest[0] == '\\' && rest.size() > 1) {
        out += rest[1];
        ++i;
      } else if (rest[0] == '[') {
        ++depth;
        // A bracket that closes at once is a literal.
        for (const char c : {'^', ']'}) {
          if (i + 1 < pattern.size() && pattern[i + 1] == c) out += pattern[++i];
        }
      } else if (rest[0] == ']') {
        depth = std::max(0, depth - 1);
      }
    }
  }
  return out;
}

/// The properties of this name hold other characters in the version that the `tokenizers` package is built with.
bool names_word_property(std::string_view pattern) {
  std::string lower;
  for (const char c : pattern) {
    if (c != ' ' && c != '_' && c != '-') lower += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  }
  return lower.find("\\p{word}") != lower.npos || lower.find("\\p{^word}") != lower.npos;
}

const OnigUChar* bytes_of(std::string_view text) { return reinterpret_cast<const OnigUChar*>(text.data()); }

}  // namespace

struct Regex::Code {
  Code(regex_t* compiled, UnicodeTables tables_of_text) : code(compiled), tables(tables_of_text) {}
  ~Code() { onig_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  regex_t* code;
  UnicodeTables tables;
};

Regex::Regex(const std::string& pattern, UnicodeTables tables, RegexSyntax syntax) {
  start_engine();
  CRUMB_CHECK(pattern.size() <= kLongestPattern, "regular expression {}...: {} bytes, at most {} are read",
              std::string_view(pattern).substr(0, 40), pattern.size(), kLongestPattern);
  std::string storage;
  CRUMB_CHECK(valid_utf8(pattern, storage).data() == pattern.data(), "regular expression {}: not valid UTF-8",
              valid_utf8(pattern, storage));
  CRUMB_CHECK(!names_word_property(pattern), "regular expression {}: \\p{{Word}} is not supported; \\w is", pattern);
  const bool is_python = syntax == RegexSyntax::python;
  const std::string source = is_python ? pattern : with_symbols_in_punct(pattern);
  regex_t* code = nullptr;
  OnigErrorInfo info;
  const int rc = onig_new(&code, bytes_of(source), bytes_of(source) + source.size(), ONIG_OPTION_NONE,
                          ONIG_ENCODING_UTF8, is_python ? ONIG_SYNTAX_PYTHON : ONIG_SYNTAX_DEFAULT, &info);
  if (rc != ONIG_NORMAL) user_error("regular expression {}: {}", pattern, text_of_error(rc, &info));
  code_ = std::make_shared<const Code>(code, tables);
}

struct Regex::Matcher::Data {
  explicit Data(const Regex& regex) : code(*regex.code_), region(onig_region_new()), limits(onig_new_match_param()) {
    onig_initialize_match_param(limits);
    onig_set_retry_limit_in_match_of_match_param(limits, kRetriesOfMatch);
  }
  ~Data() {
    onig_region_free(region, 1);
    onig_free_match_param(limits);
  }
  Data(const Data&) = delete;
  Data& operator=(const Data&) = delete;

  /// One search may take time and memory in proportion to the text, so that no pattern hangs or fills the machine.
  void set_limits(size_t size) {
    onig_set_retry_limit_in_search_of_match_param(limits, kRetriesOfMatch + 64 * size);
    onig_set_match_stack_limit_size_of_match_param(
        limits, static_cast<unsigned int>(std::min<size_t>(1'000'000 + 8 * size, UINT32_MAX)));
  }

  const Code& code;
  OnigRegion* region;
  OnigMatchParam* limits;
  std::string storage;
};

Regex::Matcher::Matcher(const Regex& regex) : data_(std::make_unique<Data>(regex)) {}
Regex::Matcher::~Matcher() = default;

// The order of steps is that of the iterator of the `onig` crate, which the `tokenizers` package runs: after an empty
// match where the last one ended the search goes on one character later.
void Regex::Matcher::find_all(std::string_view text, std::vector<Span>& matches) {
  if (text.empty()) return;
  text = with_known_characters(text, data_->code.tables, data_->storage);
  const OnigUChar *begin = bytes_of(text), *end = begin + text.size();
  data_->set_limits(text.size());
  bool any = false;
  size_t at = 0, last_end = 0;
  while (at <= text.size()) {
    const int rc = onig_search_with_param(data_->code.code, begin, end, begin + at, end, data_->region,
                                          ONIG_OPTION_NONE, data_->limits);
    if (rc == ONIG_MISMATCH) return;
    if (rc < 0) run_error("splitting text for the tokenizer, from byte {}: {}", at, text_of_error(rc, nullptr));
    const Span match = {static_cast<size_t>(data_->region->beg[0]), static_cast<size_t>(data_->region->end[0])};
    if (match.end < match.begin || match.begin < last_end)
      run_error("splitting text for the tokenizer: the expression moves a match back to byte {}", match.begin);
    if (match.begin == match.end && any && last_end == match.end) {
      at += at < text.size() ? utf8_size(text[at]) : 1;
      continue;
    }
    matches.push_back(match);
    any = true;
    at = last_end = match.end;
  }
}

std::vector<std::vector<Span>> Regex::find_groups(std::string_view text) const {
  Matcher::Data data(*this);
  const OnigUChar *begin = bytes_of(text), *end = begin + text.size();
  data.set_limits(text.size());
  std::vector<std::vector<Span>> matches;
  size_t at = 0;
  bool was_empty = false;  // the last match: at the same place only one that is not may follow
  while (at <= text.size()) {
    int rc = ONIG_MISMATCH;
    if (was_empty) {
      rc = onig_match_with_param(code_->code, begin, end, begin + at, data.region, ONIG_OPTION_FIND_NOT_EMPTY,
                                 data.limits);
      if (rc == ONIG_MISMATCH) at += at < text.size() ? utf8_size(text[at]) : 1;
      if (at > text.size()) break;
    }
    if (rc == ONIG_MISMATCH)
      rc = onig_search_with_param(code_->code, begin, end, begin + at, end, data.region, ONIG_OPTION_NONE, data.limits);
    if (rc == ONIG_MISMATCH) break;
    if (rc < 0) run_error("a regular expression, from byte {}: {}", at, text_of_error(rc, nullptr));
    auto& groups = matches.emplace_back();
    for (int i = 0; i < data.region->num_regs; ++i) {
      const bool took_part = data.region->beg[i] >= 0;
      groups.push_back(took_part
                           ? Span{static_cast<size_t>(data.region->beg[i]), static_cast<size_t>(data.region->end[i])}
                           : Span{});
    }
    at = groups[0].end;
    was_empty = groups[0].begin == groups[0].end;
  }
  return matches;
}

void Regex::find_all(std::string_view text, std::vector<Span>& matches) const {
  Matcher(*this).find_all(text, matches);
}

}  // namespace crumb::tokenizer
