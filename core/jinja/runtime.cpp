#include "core/jinja/runtime.h"

#include <algorithm>
#include <cmath>

#include "core/common/error.h"
#include "core/jinja/text.h"
#include "core/tokenizer/unicode.h"

namespace crumb::jinja {
namespace {

Value no_attribute(const Value& value, const Value& key) {
  const std::string of = value.is_none() ? "None" : std::string(value.type_name()) + " object";
  if (key.is_text()) return Value::undefined(fmt::format("'{}' has no attribute '{}'", of, key.text()));
  return Value::undefined(fmt::format("{} has no element {}", of, to_repr(key)));
}

/// The place of an index that may count from the end; nothing where there is none.
std::optional<size_t> place_of(int64_t index, size_t size) {
  const auto length = static_cast<int64_t>(size);
  if (index < 0) index += length;
  if (index < 0 || index >= length) return std::nullopt;
  return static_cast<size_t>(index);
}

std::optional<Value> loop_attribute(const Loop& loop, const std::string& name) {
  const auto size = static_cast<int64_t>(loop.items->size());
  const auto at = [&](int64_t i) { return (*loop.items)[static_cast<size_t>(i)]; };
  if (name == "index") return Value(loop.index0 + 1);
  if (name == "index0") return Value(loop.index0);
  if (name == "revindex") return Value(size - loop.index0);
  if (name == "revindex0") return Value(size - loop.index0 - 1);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(loop.index0 + 1 == size);
  if (name == "length") return Value(size);
  if (name == "depth") return Value(loop.depth0 + 1);
  if (name == "depth0") return Value(loop.depth0);
  if (name == "previtem") return loop.index0 > 0 ? at(loop.index0 - 1) : Value::undefined("there is no previous item");
  if (name == "nextitem")
    return loop.index0 + 1 < size ? at(loop.index0 + 1) : Value::undefined("there is no next item");
  return std::nullopt;
}

/// loop.cycle and loop.changed
std::optional<Value> loop_method(const Value& value, const std::string& name) {
  if (name != "cycle" && name != "changed") return std::nullopt;
  const auto loop = std::get<std::shared_ptr<Loop>>(value.data());
  return Value(std::make_shared<const Function>(Function{
      name, [loop, name](Runtime& runtime, const Arguments& given) {
        runtime.work(static_cast<int64_t>(given.positional.size()));
        if (name == "cycle") {
          CRUMB_CHECK(!given.positional.empty(), "cycle: no items for cycling given");
          return given.positional[static_cast<size_t>(loop->index0) % given.positional.size()];
        }
        const bool is_same = loop->has_changed && loop->last_changed.size() == given.positional.size() &&
                             std::equal(given.positional.begin(), given.positional.end(), loop->last_changed.begin(),
                                        [&](const Value& a, const Value& b) { return runtime.equal(a, b); });
        loop->has_changed = true;
        loop->last_changed = given.positional;
        return Value(!is_same);
      }}));
}

bool is_list_like(const Sequence* items) { return items != nullptr && items->kind <= Sequence::Kind::range; }

Value repeated(Runtime& runtime, const Value& what, int64_t times) {
  times = std::max<int64_t>(times, 0);
  if (what.is_text()) {
    const auto bytes = static_cast<double>(what.text().size()) * static_cast<double>(times);
    CRUMB_CHECK(bytes <= static_cast<double>(kMostTextBytes), "a text of more than {} MB", kMostTextBytes >> 20);
    std::string out;
    for (int64_t i = 0; i < times && !what.text().empty(); ++i) out += what.text();
    return runtime.made(std::move(out));
  }
  const auto& items = what.sequence()->items;
  if (!items.empty()) {
    CRUMB_CHECK(times <= kMostValueParts / static_cast<int64_t>(items.size()), "a list of more than {} values",
                kMostValueParts);
    runtime.work(times * static_cast<int64_t>(items.size()));
  }
  std::vector<Value> out;
  for (int64_t i = 0; i < times && !items.empty(); ++i) out.insert(out.end(), items.begin(), items.end());
  return Value::sequence(what.sequence()->kind, std::move(out));
}

bool can_repeat(const Value& value) {
  return value.is_text() || value.is(Sequence::Kind::list) || value.is(Sequence::Kind::tuple);
}

int64_t floor_divided(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? quotient - 1 : quotient;
}

double floor_modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

[[noreturn]] void overflow() { user_error("a whole number of more than 64 bits"); }

Value power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    CRUMB_CHECK(base != 0, "0 cannot be raised to a negative power");
    return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  }
  int64_t out = 1;
  for (int64_t i = 0; i < exponent; ++i) {
    if (base == 0 || base == 1) return base;
    if (base == -1) return exponent % 2 == 0 ? 1 : -1;
    if (__builtin_mul_overflow(out, base, &out)) overflow();
  }
  return out;
}

Value whole_arithmetic(const std::string& symbol, int64_t a, int64_t b) {
  int64_t out = 0;
  if (symbol == "+" && !__builtin_add_overflow(a, b, &out)) return out;
  if (symbol == "-" && !__builtin_sub_overflow(a, b, &out)) return out;
  if (symbol == "*" && !__builtin_mul_overflow(a, b, &out)) return out;
  if (symbol == "**") return power(a, b);
  if (symbol == "+" || symbol == "-" || symbol == "*") overflow();
  CRUMB_CHECK(b != 0, "division by zero");
  if (symbol == "/") return static_cast<double>(a) / static_cast<double>(b);
  if (a == std::numeric_limits<int64_t>::min() && b == -1) overflow();
  const int64_t quotient = floor_divided(a, b);
  return symbol == "//" ? quotient : a - quotient * b;
}

/// As CPython has it: the quotient is whole but for rounding.
double floor_quotient(double a, double b) {
  const double quotient = (a - floor_modulo(a, b)) / b, whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1 : whole;
}

Value float_arithmetic(const std::string& symbol, double a, double b) {
  if (symbol == "+") return a + b;
  if (symbol == "-") return a - b;
  if (symbol == "*") return a * b;
  if (symbol == "**") return std::pow(a, b);
  CRUMB_CHECK(b != 0, "division by zero");
  if (symbol == "/") return a / b;
  return symbol == "//" ? floor_quotient(a, b) : floor_modulo(a, b);
}

/// Where a slice begins or ends, within 0..size (or -1..size-1 going down).
int64_t slice_bound(const Value& value, int64_t fallback, int64_t size, bool goes_down) {
  if (value.is_none()) return fallback;
  int64_t at = whole_of(value, "a slice's bound");
  if (at < 0) at = at < -size ? -1 : at + size;
  const int64_t least = goes_down ? -1 : 0, most = goes_down ? size - 1 : size;
  return std::clamp(at, least, most);
}

}  // namespace

Runtime::~Runtime() {
  for (const auto& names : namespaces_) names->names.clear();
}

void Runtime::work(int64_t steps) {
  steps_ += steps;
  CRUMB_CHECK(steps_ <= kMostSteps, "the template takes more than {} steps, so it was given up", kMostSteps);
}

void Runtime::work_on_lookup(const Dict& dict, const Value& key) {
  work(static_cast<int64_t>(dict.entries.size()) * key.extent().parts);
}

Value Runtime::new_namespace() {
  work(100);  // it lives until the end
  namespaces_.push_back(std::make_shared<Namespace>());
  return Value(namespaces_.back());
}

std::vector<Value> Runtime::items_of(const Value& value) {
  std::vector<Value> out;
  if (value.is_undefined()) return out;
  if (value.is_text()) {
    for (const auto character : characters_of(value.text())) out.emplace_back(character);
  } else if (Sequence* items = value.sequence(); items != nullptr) {
    if (items->kind != Sequence::Kind::iterator) {
      out = items->items;
    } else {
      out.assign(items->items.begin() + static_cast<std::ptrdiff_t>(items->taken), items->items.end());
      items->taken = items->items.size();
    }
  } else if (const Dict* dict = value.dict(); dict != nullptr) {
    for (const auto& [key, item] : dict->entries) out.push_back(key);
  } else {
    user_error("'{}' object is not iterable", value.type_name());
  }
  work(static_cast<int64_t>(out.size()));
  return out;
}

Value Runtime::attribute(const Value& value, const std::string& name) {
  require_defined(value);
  work(1);
  if (const Namespace* names = value.names(); names != nullptr) {
    const Value* found = names->find(name);
    return found != nullptr ? *found : no_attribute(value, Value(name));
  }
  if (const Loop* loop = value.loop(); loop != nullptr) {
    if (auto found = loop_attribute(*loop, name)) return *std::move(found);
    if (auto found = loop_method(value, name)) return *std::move(found);
    user_error("loop.{} is not supported", name);
  }
  if (auto method = find_method(value, name)) return *std::move(method);
  if (const Dict* dict = value.dict(); dict != nullptr) {
    work_on_lookup(*dict, Value(name));
    if (const Value* found = dict->find_text(name); found != nullptr) return *found;
  }
  return no_attribute(value, Value(name));
}

Value Runtime::item(const Value& value, const Value& key) {
  require_defined(value);
  work(1);
  if (const Dict* dict = value.dict(); dict != nullptr) {
    work_on_lookup(*dict, key);
    if (const Value* found = dict->find(key); found != nullptr) return *found;
  } else if (key.is_whole() && is_list_like(value.sequence())) {
    const auto& items = value.sequence()->items;
    const auto place = place_of(key.whole(), items.size());
    return place ? items[*place] : no_attribute(value, key);
  } else if (key.is_whole() && value.is_text()) {
    work_on_text(value.text().size());
    const auto characters = characters_of(value.text());
    const auto place = place_of(key.whole(), characters.size());
    return place ? Value(characters[*place]) : no_attribute(value, key);
  }
  if (!key.is_text()) return no_attribute(value, key);
  if (value.dict() != nullptr) {
    if (auto method = find_method(value, key.text())) return *std::move(method);
    return no_attribute(value, key);
  }
  return attribute(value, key.text());
}

Value Runtime::path(Value value, const Value& attribute) {
  if (!attribute.is_text()) return item(value, attribute);
  for (const std::string_view part : split(attribute.text(), ".", -1, false)) {
    const bool is_place = !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
    value = item(value, is_place ? Value(int64_t{std::stoi(std::string(part))}) : Value(part));
  }
  return value;
}

Value Runtime::slice(const Value& value, const Value& begin, const Value& end, const Value& step) {
  require_defined(value);
  const bool is_text = value.is_text();
  if (!is_text && !is_list_like(value.sequence()))
    return Value::undefined(fmt::format("a {} has no slices", value.type_name()));
  const int64_t by = step.is_none() ? 1 : whole_of(step, "a slice's step");
  CRUMB_CHECK(by != 0, "a slice's step cannot be zero");
  std::vector<std::string_view> characters;
  if (is_text) characters = characters_of(value.text());
  const auto size = static_cast<int64_t>(is_text ? characters.size() : value.sequence()->items.size());
  work(1 + size / 4);
  const bool goes_down = by < 0;
  const int64_t first = slice_bound(begin, goes_down ? size - 1 : 0, size, goes_down);
  const int64_t last = slice_bound(end, goes_down ? -1 : size, size, goes_down);
  std::string text;
  std::vector<Value> items;
  for (int64_t i = first; goes_down ? i > last : i < last;) {
    if (is_text)
      text += characters[static_cast<size_t>(i)];
    else
      items.push_back(value.sequence()->items[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  return is_text ? made(std::move(text)) : made_list(std::move(items), value.sequence()->kind);
}

Value Runtime::call(const Value& function, const Arguments& arguments) {
  require_defined(function);
  work_on(Value(), arguments);
  if (const Loop* loop = function.loop(); loop != nullptr) {
    CRUMB_CHECK(loop->recurse != nullptr, "a loop that is called must be marked \"recursive\"");
    return loop->recurse->call(*this, arguments);
  }
  CRUMB_CHECK(function.function() != nullptr, "'{}' object is not callable", function.type_name());
  return function.function()->call(*this, arguments);
}

RunLevel::RunLevel(int& levels) : levels_(levels) {
  if (levels_ >= kMostRunLevels) user_error("the template nests deeper than {} levels while it runs", kMostRunLevels);
  ++levels_;
}

bool Runtime::equal(const Value& a, const Value& b) {
  work(1 + std::min(a.extent().parts, b.extent().parts));
  return a == b;
}

bool Runtime::less(const Value& a, const Value& b) {
  work(1 + std::min(a.extent().parts, b.extent().parts));
  return jinja::less(a, b);
}

std::string Runtime::made_text(const Value& value) {
  work(value.extent().parts);
  return to_text(value);
}

void Runtime::work_on(const Value& subject, const Arguments& arguments) {
  const auto text = [this](const Value& value) { work_on_text(value.is_text() ? value.text().size() : 0); };
  text(subject);
  for (const Value& value : arguments.positional) text(value);
  for (const auto& [name, value] : arguments.named) text(value);
}

bool Runtime::contains(const Value& container, const Value& item) {
  if (container.is_text()) {
    work_on_text(container.text().size());
    return find(container.text(), text_of(item, "what is looked for in a text")) != std::string::npos;
  }
  if (const Dict* dict = container.dict(); dict != nullptr) {
    work_on_lookup(*dict, item);
    return dict->find(item) != nullptr;
  }
  const auto items = items_of(container);
  return std::any_of(items.begin(), items.end(), [&](const Value& one) { return equal(one, item); });
}

int64_t Runtime::length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_text()) {
    work_on_text(value.text().size());
    return length_of(value.text());
  }
  if (value.loop() != nullptr) return static_cast<int64_t>(value.loop()->items->size());
  if (value.dict() != nullptr) return static_cast<int64_t>(value.dict()->entries.size());
  CRUMB_CHECK(value.sequence() != nullptr && !value.is(Sequence::Kind::iterator), "object of type '{}' has no len()",
              value.type_name());
  return static_cast<int64_t>(value.sequence()->items.size());
}

Value Runtime::filter(const std::string& name, const Value& subject, const Arguments& arguments) {
  const RunLevel level(levels_);  // `map` calls filters by their names
  const FilterFunction found = find_filter(name);
  CRUMB_CHECK(found != nullptr, "the filter \"{}\" is unknown or not supported", name);
  work_on(subject, arguments);
  return found(*this, subject, arguments);
}

bool Runtime::test(const std::string& name, const Value& subject, const Arguments& arguments) {
  const TestFunction found = find_test(name);
  CRUMB_CHECK(found != nullptr, "the test \"{}\" is unknown or not supported", name);
  work_on(subject, arguments);
  return found(*this, subject, arguments);
}

Value Runtime::binary(const std::string& symbol, const Value& a, const Value& b) {
  work(1);
  if (symbol == "%" && a.is_text()) return made(percent_format(*this, a.text(), b));
  require_defined(a);
  require_defined(b);
  if (a.is_whole() && b.is_whole()) return whole_arithmetic(symbol, a.whole(), b.whole());
  if (a.is_number() && b.is_number()) return float_arithmetic(symbol, a.number(), b.number());
  if (symbol == "+" && a.is_text() && b.is_text()) {
    std::string out = a.text();
    append(out, b.text());
    return made(std::move(out));
  }
  const bool are_lists = can_repeat(a) && a.sequence() != nullptr && b.is(a.sequence()->kind);
  if (symbol == "+" && are_lists) {
    auto items = a.sequence()->items;
    items.insert(items.end(), b.sequence()->items.begin(), b.sequence()->items.end());
    return made_list(std::move(items), a.sequence()->kind);
  }
  if (symbol == "*" && can_repeat(a) && b.is_whole()) return repeated(*this, a, b.whole());
  if (symbol == "*" && can_repeat(b) && a.is_whole()) return repeated(*this, b, a.whole());
  user_error("unsupported operand types for {}: '{}' and '{}'", symbol, a.type_name(), b.type_name());
}

Parameters::Parameters(std::string_view function, const Arguments& arguments, std::initializer_list<const char*> names)
    : function_(function), names_(names), given_(names.size(), nullptr) {
  CRUMB_CHECK(arguments.positional.size() <= names_.size(), "{}: {} arguments, it takes {}", function_,
              arguments.positional.size(), names_.size());
  for (size_t i = 0; i < arguments.positional.size(); ++i) given_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find_if(names_.begin(), names_.end(), [&name = name](const char* n) { return name == n; });
    CRUMB_CHECK(found != names_.end(), "{}: it has no parameter \"{}\"", function_, name);
    auto& place = given_[static_cast<size_t>(found - names_.begin())];
    CRUMB_CHECK(place == nullptr, "{}: \"{}\" is given twice", function_, name);
    place = &value;
  }
}

const Value& Parameters::required(size_t i) const {
  CRUMB_CHECK(given_[i] != nullptr, "{}: \"{}\" is missing", function_, names_[i]);
  return *given_[i];
}

int64_t Parameters::whole(size_t i, int64_t fallback) const {
  return given_[i] == nullptr ? fallback : whole_of(*given_[i], names_[i]);
}

std::optional<std::string> Parameters::text(size_t i) const {
  if (given_[i] == nullptr || given_[i]->is_none()) return std::nullopt;
  return text_of(*given_[i], names_[i]);
}

int64_t whole_of(const Value& value, std::string_view what) {
  require_defined(value);
  CRUMB_CHECK(value.is_whole(), "{} must be a whole number, not a {}", what, value.type_name());
  return value.whole();
}

const std::string& text_of(const Value& value, std::string_view what) {
  require_defined(value);
  CRUMB_CHECK(value.is_text(), "{} must be a text, not a {}", what, value.type_name());
  return value.text();
}

void require_defined(const Value& value) { CRUMB_CHECK(!value.is_undefined(), "{}", value.undefined_message()); }

}  // namespace crumb::jinja
