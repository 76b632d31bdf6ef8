// The tests of templates: `value is NAME`. Each is a line of the table.
#include <algorithm>

#include "core/common/error.h"
#include "core/jinja/runtime.h"
#include "core/jinja/text.h"

namespace crumb::jinja {
namespace {

const Value& other(const Arguments& arguments) {
  CRUMB_CHECK(arguments.positional.size() == 1 && arguments.named.empty(), "this test takes one argument");
  return arguments.positional[0];
}

bool is_even(Runtime& runtime, const Value& value, int64_t by, int64_t rest) {
  return runtime.binary("%", value, Value(by)) == Value(rest);
}

bool is_iterable(const Value& value) {
  return value.is_undefined() || value.is_text() || value.sequence() != nullptr || value.dict() != nullptr ||
         value.loop() != nullptr;
}

bool is_sequence(const Value& value) {
  const Sequence* items = value.sequence();
  if (items != nullptr) return items->kind <= Sequence::Kind::range;
  return value.is_text() || value.dict() != nullptr || value.is_undefined();
}

struct Test {
  std::string_view name;
  TestFunction run;
};

#define CRUMB_TEST(name, ...)                                                \
  Test {                                                                     \
    name, [](Runtime& runtime, const Value& v, const Arguments& a) -> bool { \
      (void)runtime, (void)v, (void)a;                                       \
      return __VA_ARGS__;                                                    \
    }                                                                        \
  }

constexpr Test kTests[] = {
    CRUMB_TEST("odd", is_even(runtime, v, 2, 1)),
    CRUMB_TEST("even", is_even(runtime, v, 2, 0)),
    CRUMB_TEST("divisibleby", runtime.binary("%", v, other(a)) == Value(0)),
    CRUMB_TEST("defined", !v.is_undefined()),
    CRUMB_TEST("undefined", v.is_undefined()),
    CRUMB_TEST("filter", v.is_text() && find_filter(v.text()) != nullptr),
    CRUMB_TEST("test", v.is_text() && find_test(v.text()) != nullptr),
    CRUMB_TEST("none", v.is_none()),
    CRUMB_TEST("boolean", v.is_bool()),
    CRUMB_TEST("false", v.is_bool() && !v.truth()),
    CRUMB_TEST("true", v.is_bool() && v.truth()),
    CRUMB_TEST("integer", v.is_whole() && !v.is_bool()),
    CRUMB_TEST("float", v.is_float()),
    CRUMB_TEST("lower", is_lower(runtime.made_text(v))),
    CRUMB_TEST("upper", is_upper(runtime.made_text(v))),
    CRUMB_TEST("string", v.is_text()),
    CRUMB_TEST("mapping", v.dict() != nullptr),
    CRUMB_TEST("number", v.is_number()),
    CRUMB_TEST("sequence", is_sequence(v)),
    CRUMB_TEST("sameas", v.is_same(other(a))),
    CRUMB_TEST("iterable", is_iterable(v)),
    CRUMB_TEST("callable", v.function() != nullptr || v.loop() != nullptr || v.is_undefined()),
    CRUMB_TEST("escaped", false),
    CRUMB_TEST("in", runtime.contains(other(a), v)),
    CRUMB_TEST("==", runtime.equal(v, other(a))),
    CRUMB_TEST("eq", runtime.equal(v, other(a))),
    CRUMB_TEST("equalto", runtime.equal(v, other(a))),
    CRUMB_TEST("!=", !runtime.equal(v, other(a))),
    CRUMB_TEST("ne", !runtime.equal(v, other(a))),
    CRUMB_TEST(">", runtime.less(other(a), v)),
    CRUMB_TEST("gt", runtime.less(other(a), v)),
    CRUMB_TEST("greaterthan", runtime.less(other(a), v)),
    CRUMB_TEST("ge", !runtime.less(v, other(a))),
    CRUMB_TEST(">=", !runtime.less(v, other(a))),
    CRUMB_TEST("<", runtime.less(v, other(a))),
    CRUMB_TEST("lt", runtime.less(v, other(a))),
    CRUMB_TEST("lessthan", runtime.less(v, other(a))),
    CRUMB_TEST("<=", !runtime.less(other(a), v)),
    CRUMB_TEST("le", !runtime.less(other(a), v)),
};

#undef CRUMB_TEST

}  // namespace

TestFunction find_test(std::string_view name) {
  const auto* found = std::find_if(std::begin(kTests), std::end(kTests), [&](const Test& t) { return t.name == name; });
  return found == std::end(kTests) ? nullptr : found->run;
}

}  // namespace crumb::jinja
