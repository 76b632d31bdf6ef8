#include "core/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <cstdlib>

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
      append_normal_form(text.substr(i, end - i), kind, out);
    else
      out.append(text.substr(i, end - i));
    i = end;
  }
  return out;
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
      append_utf8(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))), out);
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
      return step.pattern.empty() ? std::string(text) : replace_literal(text, step.pattern, step.content);
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
