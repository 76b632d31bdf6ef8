// What a template computes with: Python's values, as far as templates see them. Containers do not change once made
// (the sandbox that chat templates are written for forbids it), so they are shared; a namespace is the exception.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace crumb::jinja {

class Value;
class Runtime;

/// Containers inside each other, beyond which printing, comparing or destroying one would need a deep stack; and values
/// in one, 16 bytes of text counted as one and shared parts each time: what printing or comparing one may cost.
inline constexpr int kMostValueLevels = 150;
inline constexpr int64_t kMostValueParts = 4'000'000;

/// How much is in a container.
struct Extent {
  int levels = 1;
  int64_t parts = 1;

  /// Of a holder of one; checked.
  static Extent of(const Value& item);
  void add(const Value& item);
  void check() const;  // UserError beyond the limits
};

/// A name or an attribute that is not there. Printing, testing and iterating over it is fine, anything else an error.
struct Undefined {
  std::string message;  // "'x' is undefined"
};

struct Sequence {
  enum class Kind { list, tuple, range, keys, values, items, iterator };
  Kind kind = Kind::list;
  std::vector<Value> items;
  size_t taken = 0;  // iterator: items that are used up
  Extent extent{};
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in order of their making
  Extent extent{};

  const Value* find(const Value& key) const;
  const Value* find_text(std::string_view key) const;
};

/// namespace(...): names that inner scopes may set.
struct Namespace {
  std::vector<std::pair<std::string, Value>> names;

  const Value* find(std::string_view name) const;
  void set(const std::string& name, Value value);
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

struct Function {
  std::string name;
  std::function<Value(Runtime&, const Arguments&)> call;
  Extent extent{.levels = 0};  // of what it holds, which is destroyed with it
};

/// The variable `loop`.
struct Loop {
  std::shared_ptr<const std::vector<Value>> items;
  Extent extent{};
  int64_t index0 = 0, depth0 = 0;
  std::vector<Value> last_changed;
  bool has_changed = false;
  std::shared_ptr<const Function> recurse;  // of a loop marked recursive
};

class Value {
 public:
  struct None {};
  using Text = std::shared_ptr<const std::string>;
  using Data = std::variant<std::shared_ptr<const Undefined>, None, bool, int64_t, double, Text,
                            std::shared_ptr<Sequence>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                            std::shared_ptr<const Function>, std::shared_ptr<Loop>>;

  Value() : data_(None{}) {}
  Value(bool value) : data_(value) {}
  Value(int value) : data_(int64_t{value}) {}
  Value(int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(std::string value) : data_(std::make_shared<const std::string>(std::move(value))) {}
  Value(std::string_view value) : Value(std::string(value)) {}
  Value(const char* value) : Value(std::string(value)) {}
  Value(std::shared_ptr<Namespace> value) : data_(std::move(value)) {}
  Value(std::shared_ptr<const Function> value) : data_(std::move(value)) {}
  Value(std::shared_ptr<Loop> value) : data_(std::move(value)) {}

  static Value undefined(std::string message);
  /// Containers. UserError where they would be too deep or too large.
  static Value sequence(Sequence::Kind kind, std::vector<Value> items);
  static Value list(std::vector<Value> items) { return sequence(Sequence::Kind::list, std::move(items)); }
  /// A key given twice keeps its first place and its last value, as in Python.
  static Value dict(std::vector<std::pair<Value, Value>> entries);
  static Value from_json(const nlohmann::ordered_json& json);

  bool is_undefined() const { return std::holds_alternative<std::shared_ptr<const Undefined>>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_text() const { return std::holds_alternative<Text>(data_); }
  /// int as Python has it, bools included.
  bool is_whole() const { return is_bool() || std::holds_alternative<int64_t>(data_); }
  bool is_number() const { return is_whole() || is_float(); }

  const std::string& undefined_message() const { return std::get<0>(data_)->message; }
  const std::string& text() const { return *std::get<Text>(data_); }
  int64_t whole() const { return is_bool() ? std::get<bool>(data_) : std::get<int64_t>(data_); }
  double number() const { return is_float() ? std::get<double>(data_) : static_cast<double>(whole()); }
  /// nullptr for another kind.
  Sequence* sequence() const { return pointer<std::shared_ptr<Sequence>>(); }
  const Dict* dict() const { return pointer<std::shared_ptr<const Dict>>(); }
  Namespace* names() const { return pointer<std::shared_ptr<Namespace>>(); }
  const Function* function() const { return pointer<std::shared_ptr<const Function>>(); }
  Loop* loop() const { return pointer<std::shared_ptr<Loop>>(); }
  bool is(Sequence::Kind kind) const { return sequence() != nullptr && sequence()->kind == kind; }
  const Data& data() const { return data_; }

  /// bool(value)
  bool truth() const;
  /// The name of its Python type: "str", "NoneType".
  const char* type_name() const;
  Extent extent() const;
  /// Where two values are the same object (`is`).
  bool is_same(const Value& other) const;

 private:
  template <class Pointer>
  auto pointer() const -> decltype(std::declval<Pointer>().get()) {
    const auto* found = std::get_if<Pointer>(&data_);
    return found == nullptr ? nullptr : found->get();
  }
  Data data_;
};

bool operator==(const Value& a, const Value& b);
/// a < b; UserError for types that have no order.
bool less(const Value& a, const Value& b);
/// str(value) and repr(value). UserError for what Python would print with an address, and for a namespace.
std::string to_text(const Value& value);
std::string to_repr(const Value& value);

struct JsonStyle {
  bool ascii = false, sort_keys = false;
  std::optional<std::string> indent;
  std::string item_separator = ", ", key_separator = ": ";
};
/// json.dumps(value, ...). UserError for values that JSON has not.
std::string to_json(const Value& value, const JsonStyle& style);

/// The longest text that a template may make.
inline constexpr size_t kMostTextBytes = size_t{32} << 20;
/// out += part, with that bound.
void append(std::string& out, std::string_view part);

}  // namespace crumb::jinja
