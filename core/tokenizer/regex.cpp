#include "core/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/common/error.h"
#include "core/tokenizer/unicode.h"

namespace crumb::tokenizer {
namespace {

// PCRE2's own \s counts U+180E, its \w has no marks: Oniguruma's sets instead (its \w: Alphabetic, marks, decimal
// numbers, connectors, and the numbers of Latin-1).
constexpr std::string_view kSpaces =
    "\\t-\\r\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
constexpr std::string_view kWord =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\xb2\\xb3\\xb9\\xbc-\\xbe\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{"
    "1f169}\\x{1f170}-\\x{1f189}";
constexpr std::string_view kHexDigits = "0-9a-fA-F";

std::string_view set_of_escape(char c) {
  switch (c) {
    case 's':
    case 'S':
      return kSpaces;
    case 'w':
    case 'W':
      return kWord;
    case 'h':
    case 'H':
      return kHexDigits;
    default:
      return {};
  }
}

void append_escape(char c, bool in_class, std::string_view pattern, std::string& out) {
  const std::string_view set = set_of_escape(c);
  const bool negated = c == 'S' || c == 'W' || c == 'H';
  if (set.empty() || (in_class && c == 'S')) {  // [\S] differs by U+180E only
    out.append({'\\', c});
  } else if (in_class) {
    CRUMB_CHECK(!negated, "regular expression {}: \\{} inside brackets is not supported", pattern, c);
    out.append(set);
  } else {
    out.append(negated ? "[^" : "[").append(set).append("]");
  }
}

}  // namespace

struct Regex::Code {
  explicit Code(pcre2_code* compiled) : code(compiled) {}
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  pcre2_code* code;
};

std::string to_pcre2(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      append_escape(pattern[++i], in_class, pattern, out);
      continue;
    }
    const bool nested = in_class && (c == '[' || pattern.substr(i, 2) == "&&");
    CRUMB_CHECK(!nested, "regular expression {}: set operations inside brackets ({}) are not supported", pattern,
                pattern.substr(i, 2));
    if (c == '[') {
      in_class = true;
      // A bracket that closes at once is a literal in both engines.
      if (pattern.substr(i + 1, 1) == "^")
        out += pattern[i++], out += '^';
      else
        out += c;
      if (pattern.substr(i + 1, 1) == "]") out += "\\]", ++i;
      continue;
    }
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

Regex::Regex(const std::string& pattern) {
  const std::string translated = to_pcre2(pattern);
  int error = 0;
  size_t offset = 0;
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  // Ruby's ^ and $ match at every line.
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context.get());
  if (code == nullptr) {
    unsigned char message[256];
    pcre2_get_error_message(error, message, sizeof message);
    user_error("regular expression {}: {}", pattern, reinterpret_cast<const char*>(message));
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without JIT support the interpreter runs
  code_ = std::make_shared<const Code>(code);
}

struct Regex::Matcher::Data {
  explicit Data(const Regex& regex) : code(regex.code_->code), match(pcre2_match_data_create(1, nullptr)) {}
  ~Data() { pcre2_match_data_free(match); }
  Data(const Data&) = delete;
  Data& operator=(const Data&) = delete;
  const pcre2_code* code;
  pcre2_match_data* match;
};

Regex::Matcher::Matcher(const Regex& regex) : data_(std::make_unique<Data>(regex)) {}
Regex::Matcher::~Matcher() = default;

void Regex::Matcher::find_all(std::string_view text, std::vector<Span>& matches) const {
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t at = 0;
  while (at < text.size()) {
    int rc = pcre2_match(data_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, data_->match, nullptr);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its stack on the heap
      rc = pcre2_match(data_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data_->match, nullptr);
    }
    if (rc == PCRE2_ERROR_NOMATCH) return;
    if (rc < 0) run_error("splitting text for the tokenizer: PCRE2 error {} at byte {}", rc, at);
    const size_t* span = pcre2_get_ovector_pointer(data_->match);
    if (span[1] > span[0]) matches.push_back({span[0], span[1]});
    at = span[1] > at ? span[1] : at + utf8_size(text[at]);
  }
}

void Regex::find_all(std::string_view text, std::vector<Span>& matches) const {
  Matcher(*this).find_all(text, matches);
}

}  // namespace crumb::tokenizer
