// The functions that every template is given.
#include <array>
#include <ctime>

#include "core/common/error.h"
#include "core/jinja/runtime.h"
#include "core/jinja/template.h"
#include "core/jinja/text.h"

namespace crumb::jinja {
namespace {

constexpr int64_t kMostRange = 100'000;  // as Jinja's sandbox has it

Value range(Runtime& r, const Arguments& a) {
  const Parameters p("range", a, {"start", "stop", "step"});
  const bool has_start = p[1] != nullptr;
  const int64_t first = has_start ? whole_of(p.required(0), "start") : 0;
  const int64_t last = whole_of(has_start ? p.required(1) : p.required(0), "stop"), step = p.whole(2, 1);
  CRUMB_CHECK(step != 0, "range: the step must not be zero");
  std::vector<Value> out;
  for (int64_t i = first; step > 0 ? i < last : i > last;) {
    CRUMB_CHECK(static_cast<int64_t>(out.size()) < kMostRange, "a range of more than {} values", kMostRange);
    out.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return r.made_list(std::move(out), Sequence::Kind::range);
}

/// dict(mapping or pairs, a=1, ...)
std::vector<std::pair<Value, Value>> entries_of(Runtime& r, const Arguments& a) {
  std::vector<std::pair<Value, Value>> entries;
  CRUMB_CHECK(a.positional.size() <= 1, "dict: {} arguments, it takes 1", a.positional.size());
  if (!a.positional.empty()) {
    const Value& from = a.positional[0];
    if (from.dict() != nullptr) {
      entries = from.dict()->entries;
    } else {
      for (const Value& pair : r.items_of(from)) {
        const auto both = r.items_of(pair);
        CRUMB_CHECK(both.size() == 2, "dict: {} values where a key and a value should be", both.size());
        entries.emplace_back(both[0], both[1]);
      }
    }
  }
  for (const auto& [name, value] : a.named) entries.emplace_back(Value(name), value);
  r.work(static_cast<int64_t>(entries.size()));
  return entries;
}

Value dict(Runtime& r, const Arguments& a) { return Value::dict(entries_of(r, a)); }

Value new_namespace(Runtime& r, const Arguments& a) {
  const Value out = r.new_namespace();
  for (auto& [name, value] : entries_of(r, a)) {
    const std::string& key = text_of(name, "a name of a namespace");
    CRUMB_CHECK(!key.starts_with('_'), "a namespace cannot have the name \"{}\"", key);
    out.names()->set(key, value);
  }
  return out;
}

Value raise_exception(Runtime&, const Arguments& a) {
  const Parameters p("raise_exception", a, {"message"});
  throw Refusal(to_text(p.required(0)));
}

Value strftime_now(Runtime& r, const Arguments& a) {
  const Parameters p("strftime_now", a, {"format"});
  const std::string& format = text_of(p.required(0), "format");
  CRUMB_CHECK(format.size() <= 100, "strftime_now: a format of {} bytes", format.size());
  std::tm local{};
  const std::time_t now = r.now();
  localtime_r(&now, &local);
  std::array<char, 1024> buffer{};
  const size_t size = std::strftime(buffer.data(), buffer.size(), format.c_str(), &local);
  std::string storage(buffer.data(), size);
  return r.made(std::move(storage));
}

Value joiner(Runtime&, const Arguments& a) {
  const Parameters p("joiner", a, {"sep"});
  const auto is_used = std::make_shared<bool>(false);
  const Value between = p[0] == nullptr ? Value(", ") : *p[0];
  return Value(std::make_shared<const Function>(Function{
      "joiner",
      [is_used, between](Runtime&, const Arguments&) { return std::exchange(*is_used, true) ? between : Value(""); },
      Extent::of(between)}));
}

template <const char* name>
Value unsupported(Runtime&, const Arguments&) {
  user_error("the function {} is not supported", name);
}
constexpr char kCycler[] = "cycler", kLipsum[] = "lipsum";

}  // namespace

std::vector<std::pair<std::string, Value>> global_functions() {
  std::vector<std::pair<std::string, Value>> out;
  const auto add = [&out](const char* name, Value (*run)(Runtime&, const Arguments&)) {
    out.emplace_back(name, Value(std::make_shared<const Function>(Function{name, run})));
  };
  add("range", range);
  add("dict", dict);
  add("namespace", new_namespace);
  add("raise_exception", raise_exception);
  add("strftime_now", strftime_now);
  add("joiner", joiner);
  add(kCycler, unsupported<kCycler>);
  add(kLipsum, unsupported<kLipsum>);
  return out;
}

}  // namespace crumb::jinja
