// The filters of templates: `value | NAME(...)`. Each is a function and a line of the table at the end.
// Source of what they do: the documentation of Jinja 3.1, section "List of Builtin Filters"; tojson as transformers has
// it.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/common/error.h"
#include "core/jinja/runtime.h"
#include "core/jinja/text.h"
#include "core/tokenizer/regex.h"
#include "core/tokenizer/unicode.h"

namespace crumb::jinja {
namespace {

std::string counted_text(Runtime& runtime, const Value& value) {
  std::string text = to_text(value);
  runtime.work_on_text(text.size());
  return text;
}

Value in_lower_case(Runtime& r, const Value& value) { return value.is_text() ? r.made(to_lower(value.text())) : value; }

// ---- texts

Value upper(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("upper", a, {});
  return r.made(to_upper(to_text(v)));
}

Value lower(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("lower", a, {});
  return r.made(to_lower(to_text(v)));
}

Value title(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("title", a, {});
  return r.made(titled(to_text(v)));
}

Value capitalize(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("capitalize", a, {});
  return r.made(capitalized(to_text(v)));
}

Value string(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("string", a, {});
  return v.is_text() ? v : r.made(to_text(v));
}

Value trim(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("trim", a, {"chars"});
  const auto chars = p.text(0);
  return r.made(std::string(strip(to_text(v), Ends::both, chars)));
}

Value replace(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("replace", a, {"old", "new", "count"});
  const Value text(counted_text(r, v));
  Arguments rest{{Value(to_text(p.required(0))), Value(to_text(p.required(1)))}, {}};
  if (p[2] != nullptr && !p[2]->is_none()) rest.positional.push_back(*p[2]);
  return r.call(*find_method(text, "replace"), rest);
}

/// What a search with a pattern counts as: it may look at a text many times over.
constexpr int64_t kRegexSteps = 500'000;

/// Of lm-evaluation-harness, for templates of tasks: Python's re.sub with a replacement that stands for itself.
Value regex_replace(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("regex_replace", a, {"pattern", "repl"});
  const std::string text = counted_text(r, v), replacement = to_text(p.required(1));
  CRUMB_CHECK(replacement.find('\\') == std::string::npos,
              "regex_replace: groups in the replacement are not supported");
  r.work(kRegexSteps);
  std::vector<tokenizer::Span> matches;
  tokenizer::Regex(text_of(p.required(0), "a pattern")).find_all(text, matches);
  std::string out;
  size_t done = 0;
  for (const auto& match : matches) {
    append(out, std::string_view(text).substr(done, match.begin - done));
    append(out, replacement);
    done = match.end;
  }
  append(out, std::string_view(text).substr(done));
  return r.made(std::move(out));
}

Value center(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("center", a, {"width"});
  return r.call(*find_method(Value(to_text(v)), "center"), {{Value(p.whole(0, 80))}, {}});
}

Value format(Runtime& r, const Value& v, const Arguments& a) {
  CRUMB_CHECK(a.named.empty(), "format: names are not supported");
  return r.made(percent_format(r, to_text(v), Value::sequence(Sequence::Kind::tuple, a.positional)));
}

Value indent(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("indent", a, {"width", "first", "blank"});
  std::string before;
  if (p[0] != nullptr && p[0]->is_text())
    before = p[0]->text();
  else
    append(before, r.binary("*", Value(" "), Value(p.whole(0, 4))).text());
  const std::string text = text_of(v, "what is indented") + "\n";
  const auto lines = split_lines(text, false);
  std::string out;
  if (p.flag(1, false)) out = before;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) append(out, "\n");
    if (i > 0 && (p.flag(2, false) || !lines[i].empty())) append(out, before);
    append(out, lines[i]);
  }
  return r.made(std::move(out));
}

Value truncate(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("truncate", a, {"length", "killwords", "end", "leeway"});
  const std::string end = p.text(2).value_or("...");
  const int64_t most = p.whole(0, 255), leeway = p.whole(3, 5), kept = most - length_of(end);
  CRUMB_CHECK(kept >= 0 && leeway >= 0, "truncate: the length is less than that of the end");
  const auto& text = text_of(v, "what is truncated");
  const auto characters = characters_of(text);
  r.work_on_text(text.size());
  if (static_cast<int64_t>(characters.size()) <= most + leeway) return v;
  std::string out;
  for (int64_t i = 0; i < kept; ++i) out += characters[static_cast<size_t>(i)];
  if (!p.flag(1, false)) out = out.substr(0, std::min(out.rfind(' '), out.size()));
  return r.made(out + end);
}

Value wordcount(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("wordcount", a, {});
  int64_t words = 0;
  bool inside = false;
  const std::string text = counted_text(r, v);
  for (const auto character : characters_of(text)) {
    const bool is_part = tokenizer::is_word(tokenizer::decode_utf8(character.data()).value);
    words += is_part && !inside;
    inside = is_part;
  }
  return words;
}

Value tojson(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("tojson", a, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style{.ascii = p.flag(0, false), .sort_keys = p.flag(3, false), .indent = std::nullopt};
  if (p[1] != nullptr && !p[1]->is_none()) {
    style.indent = p[1]->is_text() ? p[1]->text() : r.binary("*", Value(" "), *p[1]).text();
    style.item_separator = ",";
  }
  if (p[2] != nullptr && !p[2]->is_none()) {
    const auto both = r.items_of(*p[2]);
    CRUMB_CHECK(both.size() == 2, "tojson: \"separators\" must be two texts");
    style.item_separator = text_of(both[0], "a separator");
    style.key_separator = text_of(both[1], "a separator");
  }
  r.work(v.extent().parts);
  return r.made(to_json(v, style));
}

// ---- numbers

Value absolute(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("abs", a, {});
  require_defined(v);
  CRUMB_CHECK(v.is_number(), "abs: a {} is no number", v.type_name());
  if (v.is_float()) return std::abs(v.number());
  return v.whole() < 0 ? r.binary("-", Value(0), v) : Value(v.whole());
}

std::optional<int64_t> parse_whole(std::string_view text, int64_t base) {
  CRUMB_CHECK(base == 0 || (base >= 2 && base <= 36), "int: base {} is neither 0 nor from 2 to 36", base);
  text = strip(text, Ends::both);
  std::string digits;
  for (const char c : text) {
    if (c != '_') digits += c;
  }
  if (digits.empty() || text.front() == '_' || text.back() == '_') return std::nullopt;
  errno = 0;
  char* end = nullptr;
  const long long value = std::strtoll(digits.c_str(), &end, static_cast<int>(base));
  if (*end != '\0' || end == digits.c_str()) return std::nullopt;
  CRUMB_CHECK(errno == 0, "int: \"{}\" has more than 64 bits", digits);
  return value;
}

std::optional<double> parse_float(std::string_view text) {
  const std::string number(strip(text, Ends::both));
  const bool is_hex = number.find_first_of("xXpP(") != std::string::npos;  // strtod knows more than Python
  char* end = nullptr;
  const double value = std::strtod(number.c_str(), &end);
  if (number.empty() || is_hex || *end != '\0') return std::nullopt;
  return value;
}

Value to_whole(double value, const Value& fallback) {
  if (!std::isfinite(value)) return fallback;
  CRUMB_CHECK(std::abs(value) < 9.2e18, "int: {} has more than 64 bits", float_text(value));
  return static_cast<int64_t>(value);
}

Value whole(Runtime&, const Value& v, const Arguments& a) {
  const Parameters p("int", a, {"default", "base"});
  const Value fallback = p[0] == nullptr ? Value(0) : *p[0];
  require_defined(v);
  if (v.is_whole()) return v.whole();
  if (v.is_float()) return to_whole(v.number(), fallback);
  if (!v.is_text()) return fallback;
  if (const auto value = parse_whole(v.text(), p.whole(1, 10))) return *value;
  const auto value = parse_float(v.text());
  return value ? to_whole(*value, fallback) : fallback;
}

Value real(Runtime&, const Value& v, const Arguments& a) {
  const Parameters p("float", a, {"default"});
  const Value fallback = p[0] == nullptr ? Value(0.0) : *p[0];
  require_defined(v);
  if (v.is_number()) return v.number();
  const auto value = v.is_text() ? parse_float(v.text()) : std::nullopt;
  return value ? Value(*value) : fallback;
}

Value round(Runtime&, const Value& v, const Arguments& a) {
  const Parameters p("round", a, {"precision", "method"});
  const int64_t precision = p.whole(0, 0);
  const std::string method = p.text(1).value_or("common");
  require_defined(v);
  CRUMB_CHECK(v.is_number(), "round: a {} is no number", v.type_name());
  CRUMB_CHECK(precision >= 0 && precision <= 300, "round: a precision of {} is not supported", precision);
  if (method == "common") {
    if (v.is_whole()) return v.whole();
    return std::strtod(fmt::format("{:.{}f}", v.number(), precision).c_str(), nullptr);
  }
  CRUMB_CHECK(method == "ceil" || method == "floor", "round: the method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = v.number() * scale;
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

// ---- lists and dicts

Value length(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("length", a, {});
  return r.length(v);
}

Value list(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("list", a, {});
  return Value::list(r.items_of(v));
}

Value first(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("first", a, {});
  if (v.is(Sequence::Kind::iterator)) {
    Sequence& items = *v.sequence();
    return items.taken < items.items.size() ? items.items[items.taken++]
                                            : Value::undefined("No first item, sequence was empty.");
  }
  const auto items = r.items_of(v);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value last(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("last", a, {});
  CRUMB_CHECK(!v.is(Sequence::Kind::iterator), "last: a generator has none; make it a list first");
  const auto items = r.items_of(v);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value reverse(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("reverse", a, {});
  if (v.is_text()) return r.slice(v, {}, {}, Value(-1));
  auto items = r.items_of(v);
  std::reverse(items.begin(), items.end());
  return Value::sequence(v.is(Sequence::Kind::iterator) ? Sequence::Kind::list : Sequence::Kind::iterator,
                         std::move(items));
}

Value join(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("join", a, {"d", "attribute"});
  const std::string between = p[0] == nullptr ? "" : to_text(*p[0]);
  std::string out;
  bool is_first = true;
  for (const Value& item : r.items_of(v)) {
    if (!is_first) append(out, between);
    is_first = false;
    append(out, to_text(p[1] == nullptr || p[1]->is_none() ? item : r.path(item, *p[1])));
  }
  return r.made(std::move(out));
}

Value items(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("items", a, {});
  if (v.is_undefined()) return Value::sequence(Sequence::Kind::iterator, {});
  CRUMB_CHECK(v.dict() != nullptr, "Can only get item pairs from a mapping.");
  auto pairs = r.items_of(r.call(*find_method(v, "items"), {}));
  return Value::sequence(Sequence::Kind::iterator, std::move(pairs));
}

/// A list in the order of `key`, which is compared without case unless said otherwise.
template <class Key>
std::vector<Value> sorted(Runtime& r, std::vector<Value> values, bool reverse, const Key& key) {
  std::vector<std::pair<Value, Value>> keyed;
  for (auto& value : values) keyed.emplace_back(key(value), value);
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& x, const auto& y) {
    r.work(1 + std::min(x.first.extent().parts, y.first.extent().parts));
    return reverse ? less(y.first, x.first) : less(x.first, y.first);
  });
  std::vector<Value> out;
  for (auto& [unused, value] : keyed) out.push_back(std::move(value));
  return out;
}

Value sort(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("sort", a, {"reverse", "case_sensitive", "attribute"});
  const bool with_case = p.flag(1, false);
  const auto key = [&](const Value& item) {
    std::vector<Value> keys;
    const auto attributes = p[2] == nullptr || p[2]->is_none() ? std::vector<std::string>{""} : [&] {
      std::vector<std::string> names;
      const std::string listed = to_text(*p[2]);
      for (const auto name : split(listed, ",", -1, false)) names.emplace_back(name);
      return names;
    }();
    for (const auto& name : attributes) {
      const Value one = name.empty() ? item : r.path(item, p[2]->is_text() ? Value(name) : *p[2]);
      keys.push_back(with_case ? one : in_lower_case(r, one));
    }
    return Value::list(std::move(keys));
  };
  return Value::list(sorted(r, r.items_of(v), p.flag(0, false), key));
}

Value dictsort(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("dictsort", a, {"case_sensitive", "by", "reverse"});
  const std::string by = p.text(1).value_or("key");
  CRUMB_CHECK(by == "key" || by == "value", "dictsort: by must be key or value");
  CRUMB_CHECK(v.dict() != nullptr, "dictsort: a {} is no dict", v.type_name());
  const auto key = [&](const Value& pair) {
    const Value& one = pair.sequence()->items[by == "key" ? 0 : 1];
    return p.flag(0, false) ? one : in_lower_case(r, one);
  };
  return Value::list(sorted(r, r.items_of(r.call(*find_method(v, "items"), {})), p.flag(2, false), key));
}

Value unique(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("unique", a, {"case_sensitive", "attribute"});
  std::vector<Value> keys, out;
  for (const Value& item : r.items_of(v)) {
    Value key = p[1] == nullptr || p[1]->is_none() ? item : r.path(item, *p[1]);
    if (!p.flag(0, false)) key = in_lower_case(r, key);
    if (std::any_of(keys.begin(), keys.end(), [&](const Value& known) { return r.equal(known, key); })) continue;
    keys.push_back(key);
    out.push_back(item);
  }
  return Value::sequence(Sequence::Kind::iterator, std::move(out));
}

Value extreme(Runtime& r, const Value& v, const Arguments& a, const char* name, bool is_max) {
  const Parameters p(name, a, {"case_sensitive", "attribute"});
  const auto key = [&](const Value& item) {
    const Value one = p[1] == nullptr || p[1]->is_none() ? item : r.path(item, *p[1]);
    return p.flag(0, false) ? one : in_lower_case(r, one);
  };
  const auto items = r.items_of(v);
  if (items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  const Value* best = &items[0];
  for (const Value& item : items) {
    if (is_max ? r.less(key(*best), key(item)) : r.less(key(item), key(*best))) best = &item;
  }
  return *best;
}

Value minimum(Runtime& r, const Value& v, const Arguments& a) { return extreme(r, v, a, "min", false); }
Value maximum(Runtime& r, const Value& v, const Arguments& a) { return extreme(r, v, a, "max", true); }

Value sum(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("sum", a, {"attribute", "start"});
  Value out = p[1] == nullptr ? Value(0) : *p[1];
  CRUMB_CHECK(!out.is_text(), "sum: texts are joined by the filter join");
  for (const Value& item : r.items_of(v))
    out = r.binary("+", out, p[0] == nullptr || p[0]->is_none() ? item : r.path(item, *p[0]));
  return out;
}

Value batch(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("batch", a, {"linecount", "fill_with"});
  const int64_t size = whole_of(p.required(0), "linecount");
  CRUMB_CHECK(size > 0 && size <= kMostValueParts, "batch: {} items a batch", size);
  std::vector<Value> out, one;
  for (const Value& item : r.items_of(v)) {
    if (static_cast<int64_t>(one.size()) == size) out.push_back(Value::list(std::exchange(one, {})));
    one.push_back(item);
  }
  if (!one.empty()) {
    while (p[1] != nullptr && !p[1]->is_none() && static_cast<int64_t>(one.size()) < size) one.push_back(*p[1]);
    out.push_back(r.made_list(std::move(one)));
  }
  return Value::sequence(Sequence::Kind::iterator, std::move(out));
}

Value attr(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("attr", a, {"name"});
  const std::string& name = text_of(p.required(0), "name");
  require_defined(v);
  if (v.dict() != nullptr && !find_method(v, name))  // attributes only, no items
    return Value::undefined(fmt::format("'dict object' has no attribute '{}'", name));
  return r.attribute(v, name);
}

// ---- any value

Value fallback(Runtime&, const Value& v, const Arguments& a) {
  const Parameters p("default", a, {"default_value", "boolean"});
  if (!v.is_undefined() && (v.truth() || !p.flag(1, false))) return v;
  return p[0] == nullptr ? Value("") : *p[0];
}

/// The arguments behind the first `count`, which belong to the filter or test that is applied to each item.
Arguments without_first(const Arguments& a, size_t count) {
  return {{a.positional.begin() + static_cast<std::ptrdiff_t>(count), a.positional.end()}, a.named};
}

Value map(Runtime& r, const Value& v, const Arguments& a) {
  std::vector<Value> out;
  if (a.positional.empty()) {
    const Parameters p("map", a, {"attribute", "default"});
    for (const Value& item : r.items_of(v)) {
      Value one = r.path(item, p.required(0));
      out.push_back(one.is_undefined() && p[1] != nullptr && !p[1]->is_none() ? *p[1] : one);
    }
  } else {
    const std::string& name = text_of(a.positional[0], "the filter of map");
    for (const Value& item : r.items_of(v)) out.push_back(r.filter(name, item, without_first(a, 1)));
  }
  return Value::sequence(Sequence::Kind::iterator, std::move(out));
}

Value chosen(Runtime& r, const Value& v, const Arguments& a, bool by_attribute, bool wanted) {
  const size_t first = by_attribute ? 1 : 0;
  CRUMB_CHECK(a.positional.size() >= first, "selectattr: the name of an attribute is missing");
  std::vector<Value> out;
  for (const Value& item : r.items_of(v)) {
    const Value one = by_attribute ? r.path(item, a.positional[0]) : item;
    const bool is_so = a.positional.size() > first
                           ? r.test(text_of(a.positional[first], "the test"), one, without_first(a, first + 1))
                           : one.truth();
    if (is_so == wanted) out.push_back(item);
  }
  return Value::sequence(Sequence::Kind::iterator, std::move(out));
}

Value select(Runtime& r, const Value& v, const Arguments& a) { return chosen(r, v, a, false, true); }
Value reject(Runtime& r, const Value& v, const Arguments& a) { return chosen(r, v, a, false, false); }
Value selectattr(Runtime& r, const Value& v, const Arguments& a) { return chosen(r, v, a, true, true); }
Value rejectattr(Runtime& r, const Value& v, const Arguments& a) { return chosen(r, v, a, true, false); }

struct Filter {
  std::string_view name;
  FilterFunction run;
};

constexpr Filter kFilters[] = {
    {"abs", absolute},
    {"attr", attr},
    {"batch", batch},
    {"capitalize", capitalize},
    {"center", center},
    {"count", length},
    {"d", fallback},
    {"default", fallback},
    {"dictsort", dictsort},
    {"first", first},
    {"float", real},
    {"format", format},
    {"indent", indent},
    {"int", whole},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", length},
    {"list", list},
    {"lower", lower},
    {"map", map},
    {"max", maximum},
    {"min", minimum},
    {"regex_replace", regex_replace},
    {"reject", reject},
    {"rejectattr", rejectattr},
    {"replace", replace},
    {"reverse", reverse},
    {"round", round},
    {"select", select},
    {"selectattr", selectattr},
    {"sort", sort},
    {"string", string},
    {"sum", sum},
    {"title", title},
    {"tojson", tojson},
    {"trim", trim},
    {"truncate", truncate},
    {"unique", unique},
    {"upper", upper},
    {"wordcount", wordcount},
};

}  // namespace

FilterFunction find_filter(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kFilters), std::end(kFilters), [&](const Filter& f) { return f.name == name; });
  return found == std::end(kFilters) ? nullptr : found->run;
}

}  // namespace crumb::jinja
