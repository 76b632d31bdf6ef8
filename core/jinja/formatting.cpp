// Python's two ways to put values into a text: "%s" % values and "{}".format(values).
#include <algorithm>

#include "core/common/error.h"
#include "core/jinja/runtime.h"
#include "core/jinja/text.h"

namespace crumb::jinja {
namespace {

/// One "%..." of a pattern.
struct Conversion {
  bool to_left = false, with_zeros = false, with_plus = false;
  int64_t width = 0;
  std::optional<int64_t> precision{};
  char kind = 's';
};

int64_t take_number(const std::string& pattern, size_t& at) {
  int64_t number = 0;
  while (at < pattern.size() && pattern[at] >= '0' && pattern[at] <= '9') {
    number = number * 10 + (pattern[at++] - '0');
    CRUMB_CHECK(number <= 10'000, "a width of more than 10000 in \"{}\"", pattern);
  }
  return number;
}

/// Behind the "%".
Conversion take_conversion(const std::string& pattern, size_t& at) {
  Conversion out;
  for (; at < pattern.size(); ++at) {
    if (pattern[at] == '-')
      out.to_left = true;
    else if (pattern[at] == '0')
      out.with_zeros = true;
    else if (pattern[at] == '+')
      out.with_plus = true;
    else
      break;
  }
  out.width = take_number(pattern, at);
  if (at < pattern.size() && pattern[at] == '.') out.precision = take_number(pattern, ++at);
  CRUMB_CHECK(at < pattern.size(), "a \"%\" without its letter in \"{}\"", pattern);
  out.kind = pattern[at++];
  return out;
}

std::string converted(const Conversion& how, const Value& value) {
  const auto signed_number = [&](std::string text) { return how.with_plus && text[0] != '-' ? "+" + text : text; };
  switch (how.kind) {
    case 's':
    case 'r': {
      std::string text = how.kind == 's' ? to_text(value) : to_repr(value);
      if (!how.precision) return text;
      const auto characters = characters_of(text);
      std::string out;
      for (size_t i = 0; i < std::min(characters.size(), static_cast<size_t>(*how.precision)); ++i)
        out += characters[i];
      return out;
    }
    case 'd':
    case 'i':
      require_defined(value);
      CRUMB_CHECK(value.is_number() && !how.precision, "%{}: a number is required, not {}", how.kind,
                  value.type_name());
      CRUMB_CHECK(value.is_whole() || std::abs(value.number()) < 9.2e18, "%{}: {} has more than 64 bits", how.kind,
                  float_text(value.number()));
      return signed_number(std::to_string(value.is_whole() ? value.whole() : static_cast<int64_t>(value.number())));
    case 'f':
      require_defined(value);
      CRUMB_CHECK(value.is_number(), "%f: a number is required, not {}", value.type_name());
      return signed_number(fmt::format("{:.{}f}", value.number(), how.precision.value_or(6)));
    case 'x':
      return signed_number(fmt::format("{:x}", whole_of(value, "%x")));
    default:
      user_error("\"%{}\" in a text is not supported", how.kind);
  }
}

std::string padded(const Conversion& how, std::string text) {
  const int64_t missing = how.width - length_of(text);
  if (missing <= 0) return text;
  const auto count = static_cast<size_t>(missing);
  if (how.to_left) return text + std::string(count, ' ');
  const bool is_number = how.kind != 's' && how.kind != 'r';
  if (!how.with_zeros || !is_number) return std::string(count, ' ') + text;
  const size_t sign = text[0] == '-' || text[0] == '+' ? 1 : 0;
  return text.substr(0, sign) + std::string(count, '0') + text.substr(sign);
}

}  // namespace

std::string percent_format(Runtime& r, const std::string& pattern, const Value& values) {
  const std::vector<Value> given =
      values.is(Sequence::Kind::tuple) ? values.sequence()->items : std::vector<Value>{values};
  size_t used = 0;
  std::string out;
  for (size_t at = 0; at < pattern.size();) {
    const size_t percent = std::min(pattern.find('%', at), pattern.size());
    append(out, std::string_view(pattern).substr(at, percent - at));
    at = percent + 1;
    if (percent == pattern.size()) break;
    if (at < pattern.size() && pattern[at] == '%') {
      append(out, "%");
      ++at;
      continue;
    }
    CRUMB_CHECK(at >= pattern.size() || pattern[at] != '(', "names in \"{}\" are not supported", pattern);
    const Conversion how = take_conversion(pattern, at);
    CRUMB_CHECK(used < given.size(), "not enough arguments for the text \"{}\"", pattern);
    r.work(1);
    append(out, padded(how, converted(how, given[used++])));
  }
  CRUMB_CHECK(used == given.size() || (values.dict() != nullptr && used == 0),
              "not all arguments are used by the text \"{}\"", pattern);
  return out;
}

std::string brace_format(Runtime& r, const std::string& pattern, const Arguments& arguments) {
  std::string out;
  size_t next = 0;
  bool has_numbers = false;
  for (size_t at = 0; at < pattern.size(); ++at) {
    const char c = pattern[at];
    if (c != '{' && c != '}') {
      append(out, std::string_view(&c, 1));
      continue;
    }
    if (at + 1 < pattern.size() && pattern[at + 1] == c) {
      append(out, std::string_view(&c, 1));
      ++at;
      continue;
    }
    const size_t end = pattern.find('}', at);
    CRUMB_CHECK(c == '{' && end != std::string::npos, "a single \"{}\" in the text \"{}\"", c, pattern);
    const std::string name = pattern.substr(at + 1, end - at - 1);
    CRUMB_CHECK(name.find_first_of("{:!.[") == std::string::npos, "\"{{{}}}\" in a text is not supported", name);
    at = end;
    r.work(1);
    const auto named = std::find_if(arguments.named.begin(), arguments.named.end(),
                                    [&](const auto& argument) { return argument.first == name; });
    if (named != arguments.named.end()) {
      append(out, to_text(named->second));
      continue;
    }
    const bool is_place = name.size() < 6 && name.find_first_not_of("0123456789") == std::string::npos;
    has_numbers = has_numbers || !name.empty();
    CRUMB_CHECK(!has_numbers || (next == 0 && !name.empty()), "\"{{}}\" and \"{{0}}\" in one text");
    const size_t place = name.empty() ? next++ : is_place ? std::stoul(name) : arguments.positional.size();
    CRUMB_CHECK(place < arguments.positional.size(), "\"{{{}}}\" in a text: there is no such argument", name);
    append(out, to_text(arguments.positional[place]));
  }
  return out;
}

}  // namespace crumb::jinja
