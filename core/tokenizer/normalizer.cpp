#include "core/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "core/common/error.h"
#include "core/tokenizer/unicode.h"

namespace crumb::tokenizer {
namespace {

using Kind = NormalizerStep::Kind;

int utf8proc_options(Kind kind) {
  switch (kind) {
    case Kind::nfc:
      return UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    case Kind::nfd:
      return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    case Kind::nfkc:
      return UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT;
    default:
      return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
  }
}

void append_normal_form(std::string_view text, Kind kind, std::string& out) {
  utf8proc_uint8_t* result = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &result, static_cast<utf8proc_option_t>(utf8proc_options(kind)));
  if (size < 0) run_error("Unicode normalization: {}", utf8proc_errmsg(size));
  out.append(reinterpret_cast<const char*>(result), static_cast<size_t>(size));
  std::free(result);  // NOLINT: allocated by utf8proc with malloc
}

struct CodeRange {
  uint32_t first, last;
};

/// Characters whose decomposition or combining class came after the Unicode version of the tables with which the
/// `tokenizers` package normalizes (the crate unicode-normalization-alignments): it leaves them where they stand.
// clang-format off
constexpr CodeRange kUnknownToTokenizers[] = {
    {0x7fd, 0x7fd}, {0x898, 0x89f}, {0x8ca, 0x8d3}, {0x9fe, 0x9fe}, {0xc3c, 0xc3c}, {0xd3b, 0xd3c}, {0xeba, 0xeba},
    {0x1715, 0x1715}, {0x1abf, 0x1ace}, {0x1df6, 0x1dfa}, {0x32ff, 0x32ff}, {0xa7f2, 0xa7f4}, {0xa82c, 0xa82c},
    {0xab69, 0xab69}, {0x10781, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba}, {0x10d24, 0x10d27},
    {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b},
    {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193d, 0x1193e},
    {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99},
    {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42},
    {0x16ff0, 0x16ff1}, {0x1e030, 0x1e06d}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136},
    {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9},
};
// clang-format on

bool stays(uint32_t c) {
  const auto* const it = std::upper_bound(std::begin(kUnknownToTokenizers), std::end(kUnknownToTokenizers), c,
                                          [](uint32_t value, const CodeRange& range) { return value < range.first; });
  return it != std::begin(kUnknownToTokenizers) && c <= (it - 1)->last;
}

/// Normal forms of the stretches between the characters that stay.
void append_normal_forms(std::string_view text, Kind kind, std::string& out) {
  size_t from = 0;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode_utf8(text.data() + i);
    if (stays(c.value)) {
      if (i > from) append_normal_form(text.substr(from, i - from), kind, out);
      out.append(text.substr(i, c.size));
      from = i + c.size;
    }
    i += c.size;
  }
  if (from < text.size()) append_normal_form(text.substr(from), kind, out);
}

/// An ASCII character never composes with what stands before it, so the text may be cut there; NFC leaves everything
/// below U+0300 as it is.
std::string normal_form(std::string_view text, Kind kind) {
  const unsigned char first_changed = kind == Kind::nfc ? 0xcc : 0x80;
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  size_t i = 0;
  while (i < text.size()) {
    size_t end = i + 1;
    bool may_change = static_cast<unsigned char>(text[i]) >= first_changed;
    while (end < text.size() && static_cast<unsigned char>(text[end]) >= 0x80) {
      may_change = may_change || static_cast<unsigned char>(text[end]) >= first_changed;
      ++end;
    }
    if (may_change)
      append_normal_forms(text.substr(i, end - i), kind, out);
    else
      out.append(text.substr(i, end - i));
    i = end;
  }
  return out;
}

/// Capital letters that came with Unicode 15 to 17, after the tables at hand. Source: UnicodeData.txt.
uint32_t new_lower(uint32_t c) {
  if (c == 0x1c89 || c == 0xa7cc || c == 0xa7ce || c == 0xa7d2 || c == 0xa7d4 || c == 0xa7da) return c + 1;
  if (c == 0xa7cb) return 0x264;
  if (c == 0xa7dc) return 0x19b;
  if (c >= 0x10d50 && c <= 0x10d65) return c + 0x20;
  if (c >= 0x16ea0 && c <= 0x16eb8) return c + 0x1b;
  return c;
}

/// Character by character, as Rust's char::to_lowercase: only U+0130 becomes two characters, a final sigma is not
/// special.
std::string lowercase(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode_utf8(text.data() + i);
    if (c.value == 0x130)
      out.append("i\xcc\x87");
    else
      append_utf8(new_lower(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value)))), out);
    i += c.size;
  }
  return out;
}

std::string replace_literal(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  size_t from = 0;
  for (size_t at = text.find(pattern); at != std::string_view::npos; at = text.find(pattern, from)) {
    out.append(text.substr(from, at - from)).append(content);
    from = at + pattern.size();
  }
  return out.append(text.substr(from));
}

std::string replace_matches(std::string_view text, const Regex& regex, std::string_view content) {
  std::vector<Span> matches;
  regex.find_all(text, matches);
  std::string out;
  size_t from = 0;
  for (const Span& match : matches) {
    out.append(text.substr(from, match.begin - from)).append(content);
    from = match.end;
  }
  return out.append(text.substr(from));
}

std::string apply_step(const NormalizerStep& step, std::string_view text) {
  switch (step.kind) {
    case Kind::lowercase:
      return lowercase(text);
    case Kind::prepend:
      return text.empty() ? std::string() : step.content + std::string(text);
    case Kind::replace:
      if (step.regex) return replace_matches(text, *step.regex, step.content);
      return replace_literal(text, step.pattern, step.content);
    default:
      return normal_form(text, step.kind);
  }
}

bool changes_nothing(const NormalizerStep& step, std::string_view text) {
  return step.kind <= Kind::nfkd && is_ascii(text);
}

}  // namespace

std::string_view Normalizer::apply(std::string_view text, std::string& storage) const {
  for (const NormalizerStep& step : steps) {
    if (changes_nothing(step, text)) continue;
    storage = apply_step(step, text);  // `text` may lie in storage: the result is built before it is moved there
    text = storage;
  }
  return text;
}

}  // namespace crumb::tokenizer
