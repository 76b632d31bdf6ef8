#include "core/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "core/common/error.h"
#include "core/jinja/text.h"
#include "core/tokenizer/unicode.h"

namespace crumb::jinja {
namespace {

/// What would be the same key of a dict has the same text here.
std::string hash_key(const Value& key) {
  CRUMB_CHECK(key.sequence() == nullptr || key.is(Sequence::Kind::tuple), "unhashable type: '{}'", key.type_name());
  CRUMB_CHECK(key.dict() == nullptr, "unhashable type: 'dict'");
  if (key.is_text()) return "s" + key.text();
  if (key.is_number()) {
    const double value = key.number();
    const bool is_whole = key.is_whole() || (std::trunc(value) == value && std::abs(value) < 9e15);
    return is_whole ? "n" + std::to_string(key.is_whole() ? key.whole() : static_cast<int64_t>(value))
                    : "n" + float_text(value);
  }
  if (key.is_none()) return "none";
  if (const Sequence* tuple = key.sequence(); tuple != nullptr) {
    std::string out = "t";
    for (const Value& item : tuple->items) {
      const std::string part = hash_key(item);
      append(out, std::to_string(part.size()) + ":");
      append(out, part);
    }
    return out;
  }
  user_error("a {} as the key of a dict is not supported", key.type_name());
}

void append_escaped(std::string& out, uint32_t unit) { append(out, fmt::format("\\u{:04x}", unit)); }

void append_json_text(std::string& out, std::string_view text, bool ascii) {
  append(out, "\"");
  for (const std::string_view bytes : characters_of(text)) {
    const uint32_t c = tokenizer::decode_utf8(bytes.data()).value;
    switch (c) {
      case '"':
        append(out, "\\\"");
        break;
      case '\\':
        append(out, "\\\\");
        break;
      case '\n':
        append(out, "\\n");
        break;
      case '\r':
        append(out, "\\r");
        break;
      case '\t':
        append(out, "\\t");
        break;
      case '\b':
        append(out, "\\b");
        break;
      case '\f':
        append(out, "\\f");
        break;
      default:
        if (c < 0x20 || (ascii && c >= 0x7f && c < 0x10000 && c != 0x7f)) {
          append_escaped(out, c);
        } else if (ascii && c >= 0x10000) {
          append_escaped(out, 0xd800 + ((c - 0x10000) >> 10));
          append_escaped(out, 0xdc00 + ((c - 0x10000) & 0x3ff));
        } else {
          append(out, bytes);
        }
    }
  }
  append(out, "\"");
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}

  void write(const Value& value) {
    if (value.is_none())
      append(out, "null");
    else if (value.is_bool())
      append(out, value.truth() ? "true" : "false");
    else if (value.is_text())
      append_json_text(out, value.text(), style_.ascii);
    else if (value.is_number())
      append(out, number(value));
    else if (value.dict() != nullptr)
      write_dict(*value.dict());
    else if (value.is(Sequence::Kind::list) || value.is(Sequence::Kind::tuple))
      write_list(value.sequence()->items);
    else
      user_error("Object of type {} is not JSON serializable", value.type_name());
  }

  std::string out;

 private:
  static std::string number(const Value& value) {
    if (value.is_whole()) return std::to_string(value.whole());
    const double number = value.number();
    return std::isnan(number)   ? "NaN"
           : std::isinf(number) ? (number < 0 ? "-Infinity" : "Infinity")
                                : float_text(number);
  }

  static std::string key_text(const Value& key) {
    if (key.is_text()) return key.text();
    if (key.is_none()) return "null";
    if (key.is_bool()) return key.truth() ? "true" : "false";
    CRUMB_CHECK(key.is_number(), "keys must be str, int, float, bool or None, not {}", key.type_name());
    return number(key);
  }

  void new_line() {
    if (!style_.indent) return;
    append(out, "\n");
    for (int i = 0; i < level_; ++i) append(out, *style_.indent);
  }

  template <class Items, class Write>
  void write_items(const char* open, const char* close, const Items& items, const Write& write_one) {
    append(out, open);
    ++level_;
    bool is_first = true;
    for (const auto& item : items) {
      if (!is_first) append(out, style_.item_separator);
      is_first = false;
      new_line();
      write_one(item);
    }
    --level_;
    if (!is_first) new_line();
    append(out, close);
  }

  void write_list(const std::vector<Value>& items) {
    write_items("[", "]", items, [this](const Value& item) { write(item); });
  }

  void write_dict(const Dict& dict) {
    auto entries = dict.entries;
    if (style_.sort_keys)
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto& a, const auto& b) { return less(a.first, b.first); });
    write_items("{", "}", entries, [this](const auto& entry) {
      append_json_text(out, key_text(entry.first), style_.ascii);
      append(out, style_.key_separator);
      write(entry.second);
    });
  }

  const JsonStyle& style_;
  int level_ = 0;
};

std::string joined(const std::vector<Value>& items) {
  std::string out;
  for (const Value& item : items) {
    if (!out.empty()) append(out, ", ");
    append(out, to_repr(item));
  }
  return out;
}

std::string sequence_repr(const Sequence& sequence) {
  using Kind = Sequence::Kind;
  const std::string items = joined(sequence.items);
  switch (sequence.kind) {
    case Kind::list:
      return "[" + items + "]";
    case Kind::tuple:
      return "(" + items + (sequence.items.size() == 1 ? ",)" : ")");
    case Kind::keys:
      return "dict_keys([" + items + "])";
    case Kind::values:
      return "dict_values([" + items + "])";
    case Kind::items:
      return "dict_items([" + items + "])";
    case Kind::range:
    case Kind::iterator:
      user_error("a {} cannot be printed; make it a list first", sequence.kind == Kind::range ? "range" : "generator");
  }
  return "";
}

bool equal_items(const std::vector<Value>& a, const std::vector<Value>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

bool equal_dicts(const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  std::unordered_map<std::string, const Value*> others;  // looked up one by one, large ones would take forever
  for (const auto& [key, value] : b.entries) others.emplace(hash_key(key), &value);
  return std::all_of(a.entries.begin(), a.entries.end(), [&](const auto& entry) {
    const auto other = others.find(hash_key(entry.first));
    return other != others.end() && *other->second == entry.second;
  });
}

}  // namespace

void Extent::add(const Value& item) {
  const Extent inner = item.extent();
  levels = std::max(levels, inner.levels + 1);
  parts += inner.parts;
}

Extent Extent::of(const Value& item) {
  Extent extent;
  extent.add(item);
  extent.check();
  return extent;
}

void Extent::check() const {
  CRUMB_CHECK(levels <= kMostValueLevels, "lists and dicts inside each other, deeper than {} levels", kMostValueLevels);
  CRUMB_CHECK(parts <= kMostValueParts, "a list or dict of more than {} values", kMostValueParts);
}

void append(std::string& out, std::string_view part) {
  CRUMB_CHECK(out.size() + part.size() <= kMostTextBytes, "a text of more than {} MB", kMostTextBytes >> 20);
  out += part;
}

const Value* Dict::find(const Value& key) const {
  for (const auto& [name, value] : entries) {
    if (name == key) return &value;
  }
  return nullptr;
}

const Value* Dict::find_text(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name.is_text() && name.text() == key) return &value;
  }
  return nullptr;
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [known, value] : names) {
    if (known == name) return &value;
  }
  return nullptr;
}

void Namespace::set(const std::string& name, Value value) {
  for (auto& [known, old] : names) {
    if (known != name) continue;
    old = std::move(value);
    return;
  }
  names.emplace_back(name, std::move(value));
}

Value Value::undefined(std::string message) {
  Value value;
  value.data_ = std::make_shared<const Undefined>(Undefined{std::move(message)});
  return value;
}

Value Value::sequence(Sequence::Kind kind, std::vector<Value> items) {
  Extent extent;
  for (const Value& item : items) extent.add(item);
  extent.check();
  Value value;
  value.data_ = std::make_shared<Sequence>(Sequence{kind, std::move(items), 0, extent});
  return value;
}

Value Value::dict(std::vector<std::pair<Value, Value>> entries) {
  Dict dict;
  std::unordered_map<std::string, size_t> places;
  for (auto& [key, item] : entries) {
    dict.extent.add(key);
    dict.extent.add(item);
    const auto [place, is_new] = places.emplace(hash_key(key), dict.entries.size());
    if (is_new)
      dict.entries.emplace_back(std::move(key), std::move(item));
    else
      dict.entries[place->second].second = std::move(item);
  }
  dict.extent.check();
  Value value;
  value.data_ = std::make_shared<const Dict>(std::move(dict));
  return value;
}

Value Value::from_json(const nlohmann::ordered_json& json) {
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::boolean:
      return json.get<bool>();
    case Type::number_integer:
    case Type::number_unsigned:
      return json.get<int64_t>();
    case Type::number_float:
      return json.get<double>();
    case Type::string: {
      std::string storage;
      return Value(tokenizer::valid_utf8(json.get_ref<const std::string&>(), storage));
    }
    case Type::array: {
      std::vector<Value> items;
      for (const auto& item : json) items.push_back(from_json(item));
      return list(std::move(items));
    }
    case Type::object: {
      std::vector<std::pair<Value, Value>> entries;
      for (const auto& [key, item] : json.items()) entries.emplace_back(key, from_json(item));
      return dict(std::move(entries));
    }
    default:
      return {};
  }
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_bool()) return std::get<bool>(data_);
  if (is_number()) return number() != 0;
  if (is_text()) return !text().empty();
  if (const Sequence* items = sequence(); items != nullptr)
    return items->kind == Sequence::Kind::iterator || !items->items.empty();
  if (dict() != nullptr) return !dict()->entries.empty();
  return true;
}

const char* Value::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_whole()) return "int";
  if (is_float()) return "float";
  if (is_text()) return "str";
  if (dict() != nullptr) return "dict";
  if (names() != nullptr) return "Namespace";
  if (loop() != nullptr) return "LoopContext";
  if (function() != nullptr) return "function";
  static constexpr const char* kNames[] = {"list",        "tuple",      "range",    "dict_keys",
                                           "dict_values", "dict_items", "generator"};
  return kNames[static_cast<size_t>(sequence()->kind)];
}

Extent Value::extent() const {
  if (const Sequence* items = sequence(); items != nullptr) return items->extent;
  if (is_text()) return {.levels = 0, .parts = 1 + static_cast<int64_t>(text().size() / 16)};
  if (function() != nullptr) return function()->extent;
  if (loop() != nullptr) return loop()->extent;
  return dict() != nullptr ? dict()->extent : Extent{.levels = 0};
}

bool Value::is_same(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  return std::visit(
      [&](const auto& mine) -> bool {
        using T = std::decay_t<decltype(mine)>;
        if constexpr (std::is_same_v<T, None>)
          return true;
        else
          return mine == std::get<T>(other.data_);
      },
      data_);
}

bool operator==(const Value& a, const Value& b) {
  if (a.is_whole() && b.is_whole()) return a.whole() == b.whole();
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.is_text() && b.is_text()) return a.text() == b.text();
  if (a.is_undefined() && b.is_undefined()) return true;
  const Sequence *left = a.sequence(), *right = b.sequence();
  if (left != nullptr && right != nullptr && left->kind == right->kind && left->kind <= Sequence::Kind::range)
    return left == right || equal_items(left->items, right->items);
  if (a.dict() != nullptr && b.dict() != nullptr) return a.dict() == b.dict() || equal_dicts(*a.dict(), *b.dict());
  return a.is_same(b);
}

bool less(const Value& a, const Value& b) {
  for (const Value* value : {&a, &b}) CRUMB_CHECK(!value->is_undefined(), "{}", value->undefined_message());
  if (a.is_whole() && b.is_whole()) return a.whole() < b.whole();
  if (a.is_number() && b.is_number()) return a.number() < b.number();
  if (a.is_text() && b.is_text()) return a.text() < b.text();  // the order of UTF-8 is that of the characters
  const Sequence *left = a.sequence(), *right = b.sequence();
  const bool have_order = left != nullptr && right != nullptr && left->kind == right->kind &&
                          (left->kind == Sequence::Kind::list || left->kind == Sequence::Kind::tuple);
  CRUMB_CHECK(have_order, "'{}' and '{}' have no order", a.type_name(), b.type_name());
  for (size_t i = 0; i < std::min(left->items.size(), right->items.size()); ++i) {
    if (!(left->items[i] == right->items[i])) return less(left->items[i], right->items[i]);
  }
  return left->items.size() < right->items.size();
}

std::string to_text(const Value& value) {
  return value.is_text() ? value.text() : value.is_undefined() ? "" : to_repr(value);
}

std::string to_repr(const Value& value) {
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.truth() ? "True" : "False";
  if (value.is_whole()) return std::to_string(value.whole());
  if (value.is_float()) return float_text(value.number());
  if (value.is_text()) return text_repr(value.text());
  if (value.sequence() != nullptr) return sequence_repr(*value.sequence());
  CRUMB_CHECK(value.dict() != nullptr, "a {} cannot be printed", value.type_name());
  std::string out = "{";
  for (const auto& [key, item] : value.dict()->entries) {
    if (out.size() > 1) append(out, ", ");
    append(out, to_repr(key) + ": ");
    append(out, to_repr(item));
  }
  return out + "}";
}

std::string to_json(const Value& value, const JsonStyle& style) {
  JsonWriter writer(style);
  writer.write(value);
  return std::move(writer.out);
}

}  // namespace crumb::jinja
