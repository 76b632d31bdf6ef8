// Methods of texts, lists, tuples and dicts. Each is a line of a table; what Python has beyond them is an error that
// says so, because a template that asked for it must not read "undefined".
#include <algorithm>

#include "core/common/error.h"
#include "core/jinja/runtime.h"
#include "core/jinja/text.h"

namespace crumb::jinja {
namespace {

using Kind = Sequence::Kind;
using MethodFunction = Value (*)(Runtime&, const Value& self, const Arguments&);

struct Method {
  std::string_view name;
  MethodFunction run;
};

Value texts(Runtime& r, const std::vector<std::string_view>& parts, Kind kind = Kind::list) {
  std::vector<Value> items;
  for (const auto part : parts) {
    r.work_on_text(part.size());
    items.emplace_back(part);
  }
  return r.made_list(std::move(items), kind);
}

template <Ends ends>
Value strip_at(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("strip", a, {"chars"});
  const auto chars = p.text(0);
  return r.made(std::string(strip(v.text(), ends, chars)));
}

template <bool from_right>
Value split_at(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p(from_right ? "rsplit" : "split", a, {"sep", "maxsplit"});
  const int64_t most = p.whole(1, -1);
  const auto separator = p.text(0);
  r.work_on_text(v.text().size());
  if (separator) {
    CRUMB_CHECK(!separator->empty(), "split: the separator is empty");
    return texts(r, split(v.text(), *separator, most, from_right));
  }
  CRUMB_CHECK(!from_right || most < 0, "rsplit: a limit without a separator is not supported");
  return texts(r, split_words(v.text(), most));
}

template <bool from_right>
Value partition(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("partition", a, {"sep"});
  const std::string& separator = text_of(p.required(0), "sep");
  CRUMB_CHECK(!separator.empty(), "partition: the separator is empty");
  const std::string_view text = v.text();
  const size_t at = from_right ? find_last(text, separator) : find(text, separator);
  if (at == std::string_view::npos)
    return texts(r,
                 from_right ? std::vector<std::string_view>{"", "", text} : std::vector<std::string_view>{text, "", ""},
                 Kind::tuple);
  return texts(r, {text.substr(0, at), separator, text.substr(at + separator.size())}, Kind::tuple);
}

/// startswith and endswith: one text, or a tuple of them.
template <bool at_end>
Value has_at(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p(at_end ? "endswith" : "startswith", a, {"prefix"});
  const Value& wanted = p.required(0);
  const auto has = [&](const Value& part) {
    const std::string& text = text_of(part, "what a text starts or ends with");
    return at_end ? v.text().ends_with(text) : v.text().starts_with(text);
  };
  if (!wanted.is(Kind::tuple)) return has(wanted);
  const auto parts = r.items_of(wanted);
  return std::any_of(parts.begin(), parts.end(), has);
}

/// The place in characters of a place in bytes.
Value place(const std::string& text, size_t at) {
  return at == std::string::npos ? int64_t{-1} : length_of(std::string_view(text).substr(0, at));
}

Value replace(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("replace", a, {"old", "new", "count"});
  const std::string& old = text_of(p.required(0), "old");
  const std::string& with = text_of(p.required(1), "new");
  int64_t left = p.whole(2, -1);
  r.work_on_text(v.text().size());
  std::string out;
  const std::string_view text = v.text();
  size_t from = 0;
  if (old.empty()) {  // between all characters, and at both ends
    for (const auto character : characters_of(text)) {
      if (left-- != 0)
        append(out, with);
      else
        left = 0;
      append(out, character);
    }
    if (left != 0) append(out, with);
    return r.made(std::move(out));
  }
  for (; left != 0; --left) {
    const size_t at = find(text, old, from);
    if (at == std::string_view::npos) break;
    append(out, text.substr(from, at - from));
    append(out, with);
    from = at + old.size();
  }
  append(out, text.substr(from));
  return r.made(std::move(out));
}

/// str.center, ljust and rjust.
template <int side>
Value justify(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("justify", a, {"width", "fillchar"});
  const std::string fill = p.text(1).value_or(" ");
  CRUMB_CHECK(length_of(fill) == 1, "the fill character must be exactly one character long");
  const int64_t width = whole_of(p.required(0), "width"), missing = std::max<int64_t>(0, width - length_of(v.text()));
  const int64_t left = side == 0 ? missing / 2 + (missing & width & 1) : side < 0 ? 0 : missing;
  std::string out = r.binary("*", Value(fill), Value(left)).text();
  append(out, v.text());
  append(out, r.binary("*", Value(fill), Value(missing - left)).text());
  return r.made(std::move(out));
}

Value zfill(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("zfill", a, {"width"});
  const int64_t missing = whole_of(p.required(0), "width") - length_of(v.text());
  if (missing <= 0) return v;
  const bool has_sign = v.text().starts_with('-') || v.text().starts_with('+');
  std::string out = v.text().substr(0, has_sign ? 1 : 0);
  append(out, r.binary("*", Value("0"), Value(missing)).text());
  append(out, std::string_view(v.text()).substr(has_sign ? 1 : 0));
  return r.made(std::move(out));
}

Value join(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("join", a, {"iterable"});
  require_defined(p.required(0));
  std::string out;
  bool is_first = true;
  for (const Value& item : r.items_of(p.required(0))) {
    if (!is_first) append(out, v.text());
    is_first = false;
    append(out, text_of(item, "what is joined"));
  }
  return r.made(std::move(out));
}

template <bool at_end>
Value without(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("removeprefix", a, {"prefix"});
  const std::string& part = text_of(p.required(0), "prefix");
  std::string_view text = v.text();
  if (at_end ? text.ends_with(part) : text.starts_with(part))
    text = at_end ? text.substr(0, text.size() - part.size()) : text.substr(part.size());
  return r.made(std::string(text));
}

Value changed(Runtime& r, const Value& v, const Arguments& a, std::string (*change)(std::string_view)) {
  Parameters("this method", a, {});
  return r.made(change(v.text()));
}

Value all(Runtime& r, const Value& v, const Arguments& a, bool (*is_in_class)(uint32_t)) {
  Parameters("this method", a, {});
  r.work_on_text(v.text().size());
  return all_are(v.text(), is_in_class);
}

Value is_ascii(Runtime&, const Value& v, const Arguments& a) {
  Parameters("isascii", a, {});
  return std::all_of(v.text().begin(), v.text().end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

#define CRUMB_METHOD(name, ...)                                         \
  Method {                                                              \
    name, [](Runtime& r, const Value& v, const Arguments& a) -> Value { \
      (void)r, (void)v, (void)a;                                        \
      return __VA_ARGS__;                                               \
    }                                                                   \
  }

constexpr Method kTextMethods[] = {
    CRUMB_METHOD("capitalize", changed(r, v, a, capitalized)),
    {"center", justify<0>},
    CRUMB_METHOD("count", count(v.text(), text_of(Parameters("count", a, {"sub"}).required(0), "sub"))),
    {"endswith", has_at<true>},
    CRUMB_METHOD("find", place(v.text(), find(v.text(), text_of(Parameters("find", a, {"sub"}).required(0), "sub")))),
    CRUMB_METHOD("format", r.made(brace_format(r, v.text(), a))),
    CRUMB_METHOD("isalpha", all(r, v, a, is_letter)),
    CRUMB_METHOD("isalnum", all(r, v, a, [](uint32_t c) { return is_letter(c) || is_decimal(c); })),
    {"isascii", is_ascii},
    CRUMB_METHOD("isdecimal", all(r, v, a, is_decimal)),
    CRUMB_METHOD("isdigit", all(r, v, a, is_decimal)),
    CRUMB_METHOD("islower", is_lower(v.text())),
    CRUMB_METHOD("isspace", all(r, v, a, is_python_space)),
    CRUMB_METHOD("isupper", is_upper(v.text())),
    {"join", join},
    {"ljust", justify<-1>},
    CRUMB_METHOD("lower", changed(r, v, a, to_lower)),
    {"lstrip", strip_at<Ends::left>},
    {"partition", partition<false>},
    {"removeprefix", without<false>},
    {"removesuffix", without<true>},
    {"replace", replace},
    CRUMB_METHOD("rfind",
                 place(v.text(), find_last(v.text(), text_of(Parameters("rfind", a, {"sub"}).required(0), "sub")))),
    {"rjust", justify<1>},
    {"rpartition", partition<true>},
    {"rsplit", split_at<true>},
    {"rstrip", strip_at<Ends::right>},
    {"split", split_at<false>},
    CRUMB_METHOD("splitlines",
                 texts(r, split_lines(v.text(), Parameters("splitlines", a, {"keepends"}).flag(0, false)))),
    {"startswith", has_at<false>},
    {"strip", strip_at<Ends::both>},
    CRUMB_METHOD("upper", changed(r, v, a, to_upper)),
    {"zfill", zfill},
};

Value get(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("get", a, {"key", "default"});
  const Dict& dict = *v.dict();
  r.work_on_lookup(dict, p.required(0));
  const Value* found = dict.find(p.required(0));
  return found != nullptr ? *found : p[1] != nullptr ? *p[1] : Value();
}

/// keys(), values() or items()
template <Kind kind>
Value view(Runtime& r, const Value& v, const Arguments& a) {
  Parameters("this method", a, {});
  std::vector<Value> out;
  for (const auto& [key, value] : v.dict()->entries)
    out.push_back(kind == Kind::keys ? key : kind == Kind::values ? value : Value::sequence(Kind::tuple, {key, value}));
  return r.made_list(std::move(out), kind);
}

Value index(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("index", a, {"value"});
  const auto& items = v.sequence()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (r.equal(items[i], p.required(0))) return static_cast<int64_t>(i);
  }
  user_error("index: the value is not in the list");
}

Value count_items(Runtime& r, const Value& v, const Arguments& a) {
  const Parameters p("count", a, {"value"});
  const auto& items = v.sequence()->items;
  return static_cast<int64_t>(
      std::count_if(items.begin(), items.end(), [&](const Value& item) { return r.equal(item, p.required(0)); }));
}

constexpr Method kDictMethods[] = {
    {"get", get},
    {"items", view<Kind::items>},
    {"keys", view<Kind::keys>},
    {"values", view<Kind::values>},
    CRUMB_METHOD("copy", v),
};
constexpr Method kListMethods[] = {{"count", count_items}, {"index", index}, CRUMB_METHOD("copy", v)};
constexpr Method kTupleMethods[] = {{"count", count_items}, {"index", index}};

#undef CRUMB_METHOD

struct Type {
  const Method *begin, *end;
  std::string_view unsupported;  // other names that Python has, with spaces around each
  std::string_view unsafe;       // those that would change the value, which the sandbox forbids
};

const Type* type_of(const Value& value) {
  static constexpr Type kText = {std::begin(kTextMethods), std::end(kTextMethods),
                                 " casefold encode expandtabs format_map index isidentifier isnumeric isprintable "
                                 "istitle maketrans rindex swapcase "
                                 "title translate ",
                                 ""};
  static constexpr Type kDict = {std::begin(kDictMethods), std::end(kDictMethods), " fromkeys ",
                                 " clear pop popitem setdefault update "};
  static constexpr Type kList = {std::begin(kListMethods), std::end(kListMethods), "",
                                 " append clear extend insert pop remove reverse sort "};
  static constexpr Type kTuple = {std::begin(kTupleMethods), std::end(kTupleMethods), "", ""};
  if (value.is_text()) return &kText;
  if (value.dict() != nullptr) return &kDict;
  return value.is(Kind::list) ? &kList : value.is(Kind::tuple) ? &kTuple : nullptr;
}

bool lists(std::string_view names, const std::string& name) { return names.find(" " + name + " ") != names.npos; }

}  // namespace

std::optional<Value> find_method(const Value& subject, const std::string& name) {
  const Type* type = type_of(subject);
  if (type == nullptr) return std::nullopt;
  const auto* found = std::find_if(type->begin, type->end, [&](const Method& m) { return m.name == name; });
  if (found != type->end) {
    return Value(
        std::make_shared<const Function>(Function{name,
                                                  [subject, run = found->run](Runtime& runtime, const Arguments& a) {
                                                    runtime.work_on_text(subject.is_text() ? subject.text().size() : 0);
                                                    return run(runtime, subject, a);
                                                  },
                                                  Extent::of(subject)}));
  }
  if (lists(type->unsafe, name))
    return Value::undefined(
        fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, subject.type_name()));
  CRUMB_CHECK(!lists(type->unsupported, name), "the method {} of a {} is not supported", name, subject.type_name());
  return std::nullopt;
}

}  // namespace crumb::jinja
