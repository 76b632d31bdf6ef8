// JSON, read with bounds and written whatever it holds. All JSON that the program reads comes through parse_json; all
// that it writes goes through dump_json.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/common/error.h"
#include "core/common/file.h"

namespace crumb {

/// Lists and objects inside each other; as many as serde_json takes, with which `tokenizers` and `safetensors` read.
/// A tree within it can be copied, printed and destroyed without a deep stack.
inline constexpr int kMostJsonLevels = 128;
/// Of one document. The largest tokenizer.json that is known has 35 MB; a tree takes about ten times its text.
inline constexpr int64_t kMostJsonBytes = int64_t{256} << 20;

struct JsonRules {
  int64_t first_line = 1, first_column = 1;  // where in the file the text begins
  int most_levels = kMostJsonLevels;
  bool unique_keys = false;  // a key may not even be given twice with the same value
};

/// One JSON document. UserError "NAME:LINE:COLUMN: not valid JSON: REASON" for text that is none; likewise one that is
/// too large, nested too deeply, or gives a key of an object twice with different values. Line and column count from 1,
/// the column in characters.
nlohmann::json parse_json(std::string_view text, const std::string& name, const JsonRules& rules = {});
/// The document of a file.
nlohmann::json read_json(const Path& path);

/// The text of a value, indented by `indent` (-1: on one line). Bytes that are not UTF-8, as a path may hold, become
/// U+FFFD.
template <class Json>
std::string dump_json(const Json& value, int indent = -1) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}
/// The start of a value's text, for messages.
std::string json_excerpt(const nlohmann::json& value);

/// `value` as a bool, an integer type, a floating type or std::string. UserError "WHERE: KEY must be an integer, not
/// 2.7" for a value of another type, a number that the type cannot hold, or one that is not finite.
template <class T>
T json_as(const nlohmann::json& value, std::string_view where, std::string_view key);

/// Typed access to an object: a value that is null counts as absent, as in transformers. Messages name file and key.
/// `object` must outlive it.
class JsonObject {
 public:
  /// UserError "WHERE: not a JSON object".
  JsonObject(const nlohmann::json& object, std::string where);

  const std::string& where() const { return where_; }
  const nlohmann::json& object() const { return object_; }
  bool has(const char* key) const { return find(key) != nullptr; }
  /// Whether the key is there, be it as null.
  bool names(const char* key) const { return object_.contains(key); }
  const nlohmann::json* find(const char* key) const;
  /// The object at `key`; an empty one where it is absent.
  JsonObject inner(const char* key) const;

  /// UserError "WHERE: KEY is missing" without a value and without a fallback.
  template <class T>
  T get(const char* key, const std::optional<T>& fallback = std::nullopt) const {
    const nlohmann::json* value = find(key);
    if (value != nullptr) return json_as<T>(*value, where_, key);
    CRUMB_CHECK(fallback, "{}: {} is missing", where_, key);
    return *fallback;
  }
  std::string text(const char* key, const std::string& fallback) const { return get<std::string>(key, fallback); }
  bool flag(const char* key, bool fallback) const { return get<bool>(key, fallback); }

 private:
  const nlohmann::json& object_;
  std::string where_;
};

namespace json_detail {
[[noreturn]] void wrong_type(const nlohmann::json& value, std::string_view where, std::string_view key,
                             const char* expected);
[[noreturn]] void out_of_range(const nlohmann::json& value, std::string_view where, std::string_view key);
}  // namespace json_detail

template <class T>
T json_as(const nlohmann::json& value, std::string_view where, std::string_view key) {
  using json_detail::out_of_range, json_detail::wrong_type;
  if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) wrong_type(value, where, key, "true or false");
    return value.get<bool>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!value.is_string()) wrong_type(value, where, key, "a string");
    return value.get<std::string>();
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!value.is_number()) wrong_type(value, where, key, "a number");
    const auto number = static_cast<T>(value.get<double>());
    if (!std::isfinite(number)) out_of_range(value, where, key);
    return number;
  } else {
    static_assert(std::is_integral_v<T>);
    if (!value.is_number_integer()) wrong_type(value, where, key, "an integer");
    // What is above 0 is unsigned, what is below it signed.
    const bool fits =
        value.is_number_unsigned() ? std::in_range<T>(value.get<uint64_t>()) : std::in_range<T>(value.get<int64_t>());
    if (!fits) out_of_range(value, where, key);
    return value.get<T>();
  }
}

}  // namespace crumb
