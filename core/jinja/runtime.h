// What filters, tests, methods and operators of a template share: attributes, calls, iteration, and the limits.
#pragma once

#include <ctime>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/jinja/value.h"

namespace crumb::jinja {

/// Steps of a template: a node, a value that is looked at, 16 bytes of text that are made. A conversation of a thousand
/// messages needs less than a tenth.
inline constexpr int64_t kMostSteps = 30'000'000;
/// Expressions, blocks and macros inside each other while running.
inline constexpr int kMostRunLevels = 400;

/// One level deeper while it lives. UserError beyond kMostRunLevels.
class RunLevel {
 public:
  explicit RunLevel(int& levels);
  ~RunLevel() { --levels_; }
  RunLevel(const RunLevel&) = delete;
  RunLevel& operator=(const RunLevel&) = delete;

 private:
  int& levels_;
};

class Runtime {
 public:
  explicit Runtime(std::time_t now) : now_(now) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  /// Breaks the circles that namespaces can make.
  ~Runtime();

  /// UserError when the template has taken more than kMostSteps.
  void work(int64_t steps);
  void work_on_text(size_t bytes) { work(1 + static_cast<int64_t>(bytes / 16)); }
  void work_on_lookup(const Dict& dict, const Value& key);
  /// A value as text, counted before it is made.
  std::string made_text(const Value& value);
  /// A text that was made, counted.
  Value made(std::string text) {
    work_on_text(text.size());
    return Value(std::move(text));
  }
  Value made_list(std::vector<Value> items, Sequence::Kind kind = Sequence::Kind::list) {
    work(static_cast<int64_t>(items.size()));
    return Value::sequence(kind, std::move(items));
  }

  /// What iterating over a value gives; a generator is used up. UserError for what has no items.
  std::vector<Value> items_of(const Value& value);
  /// value.NAME, then value["NAME"]; undefined where neither is there. UserError for what is not supported.
  Value attribute(const Value& value, const std::string& name);
  /// value[KEY], then, for a text as key, value.KEY.
  Value item(const Value& value, const Value& key);
  /// "a.b.0", as `map` and `selectattr` take it.
  Value path(Value value, const Value& attribute);
  Value slice(const Value& value, const Value& begin, const Value& end, const Value& step);
  Value call(const Value& function, const Arguments& arguments);
  bool contains(const Value& container, const Value& item);
  bool equal(const Value& a, const Value& b);
  bool less(const Value& a, const Value& b);
  int64_t length(const Value& value);

  Value filter(const std::string& name, const Value& subject, const Arguments& arguments);
  bool test(const std::string& name, const Value& subject, const Arguments& arguments);
  Value binary(const std::string& symbol, const Value& a, const Value& b);

  Value new_namespace();
  std::time_t now() const { return now_; }

 private:
  /// The texts among what something is called with.
  void work_on(const Value& subject, const Arguments& arguments);

  std::time_t now_;
  int64_t steps_ = 0;
  int levels_ = 0;  // of filters that call filters
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

/// The arguments of a function by its parameters. UserError for too many, or a name that is none of them.
class Parameters {
 public:
  Parameters(std::string_view function, const Arguments& arguments, std::initializer_list<const char*> names);
  /// nullptr: not given.
  const Value* operator[](size_t i) const { return given_[i]; }
  const Value& required(size_t i) const;
  bool flag(size_t i, bool fallback) const { return given_[i] == nullptr ? fallback : given_[i]->truth(); }
  int64_t whole(size_t i, int64_t fallback) const;
  /// Where None means the same as nothing.
  std::optional<std::string> text(size_t i) const;

 private:
  std::string function_;
  std::vector<const char*> names_;
  std::vector<const Value*> given_;
};

/// A whole number, or a UserError that names what it is for.
int64_t whole_of(const Value& value, std::string_view what);
/// A text, or a UserError.
const std::string& text_of(const Value& value, std::string_view what);
/// UserError with the message of an undefined value.
void require_defined(const Value& value);

using FilterFunction = Value (*)(Runtime&, const Value& subject, const Arguments&);
using TestFunction = bool (*)(Runtime&, const Value& subject, const Arguments&);
/// One table each, in filters.cpp and tests.cpp; nullptr for an unknown name.
FilterFunction find_filter(std::string_view name);
TestFunction find_test(std::string_view name);
/// A method of a text, list, tuple or dict, as a function; nothing where Python has none of that name. UserError for
/// one that Python has and this has not (methods.cpp).
std::optional<Value> find_method(const Value& subject, const std::string& name);
/// The functions that templates are given: range, namespace, raise_exception ... (functions.cpp)
std::vector<std::pair<std::string, Value>> global_functions();
/// "%s of %d" % values; "{} of {}".format(...) (formatting.cpp)
std::string percent_format(Runtime& runtime, const std::string& pattern, const Value& values);
std::string brace_format(Runtime& runtime, const std::string& pattern, const Arguments& arguments);

}  // namespace crumb::jinja
