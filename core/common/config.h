// Typed, strict configuration. An options struct lists its fields once, in visit(); reading, checking, printing and the
// documentation derive from that list.
//
//   struct ScheduleOptions {
//     Auto<int64_t> tokens;              // one default each
//     double warmup = 0.03;
//     std::string decay = "cosine";
//     template <class V> void visit(V& v) {
//       v.field("tokens", tokens, "tokens to train on; auto: one epoch", {.min = 1});
//       v.field("warmup", warmup, "share of the steps", {.min = 0, .max = 1});
//       v.field("decay", decay, "shape of the decay", {.choices = {"cosine", "linear", "wsd"}});
//     }
//   };
//   struct Job { ScheduleOptions schedule; template <class V> void visit(V& v) { v.section("schedule", schedule, "how
//   long"); } };
//
//   ConfigValue tree = parse_yaml_file("job.yaml");
//   apply_override(tree, "schedule.tokens=10M");
//   Job job = read_config<Job>(tree);      // throws one UserError that lists every mistake
//
// Field types: bool, int64_t (10M, 16k), double (3%), std::string, Path (relative to the file it is written in),
// Auto<T> of these, std::vector of std::string / Path / double / int64_t (one value stands for a list of one),
// std::map<std::string, double>, and structs with
//   static const char* type_name();
//   void from_config(const ConfigValue&, const std::string& key, ConfigErrors&);
//   ConfigValue to_config() const;
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/common/error.h"
#include "core/common/file.h"
#include "core/common/quantity.h"

namespace crumb {

/// Where a value was written. line and column count from 1; line 0: not in a file (the command line).
struct ConfigMark {
  std::string file;
  int line = 0, column = 0;
  Path folder;  // what relative paths are relative to
  std::string text() const { return line > 0 ? fmt::format("{}:{}:{}", file, line, column) : file; }
};

/// A YAML document as plain data: anchors resolved, merge keys refused. Duplicate keys are kept; read_config reports
/// them with the other mistakes.
struct ConfigValue {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  std::string text;                                          // of a scalar
  bool quoted = false;                                       // "12" is text, 12 a number
  std::vector<ConfigValue> items;                            // of a list
  std::vector<std::pair<std::string, ConfigValue>> entries;  // of a map, in file order
  ConfigMark mark;                                           // where the value stands
  ConfigMark key_mark;                                       // where its key stands, for an entry of a map

  // No aggregate: whether {} makes one is asked while the pair above, and so this type, is not complete.
  ConfigValue() = default;
  const ConfigValue* find(std::string_view key) const;
  ConfigValue* find(std::string_view key);
  static ConfigValue scalar(std::string text, bool quoted = false);
  static ConfigValue list(std::vector<ConfigValue> items);
  static ConfigValue map(std::vector<std::pair<std::string, ConfigValue>> entries);
};

/// Lists and maps inside each other.
inline constexpr int kMostConfigLevels = 64;

/// Throws UserError with file:line:col for text that is not YAML, goes on after its document, has tags, or grows beyond
/// all reason (256 kB, 100,000 values with those of aliases).
ConfigValue parse_yaml_file(const Path& path);
ConfigValue parse_yaml_text(const std::string& text, const std::string& name, const Path& folder = ".");
/// "optimizer.lr=1e-4", "data.train=[a.txt, b.txt]": the right side is YAML. Paths are relative to the working
/// directory.
void apply_override(ConfigValue& root, const std::string& assignment);
/// All of them in order; one UserError lists every one that cannot be read.
void apply_overrides(ConfigValue& root, const std::vector<std::string>& assignments);
/// Block-style YAML that parses back to the same values.
std::string to_yaml(const ConfigValue& value);

/// Every mistake found, so that all can be told at once.
class ConfigErrors {
 public:
  void add(const ConfigMark& mark, const std::string& key, const std::string& what);
  bool empty() const { return lines_.empty(); }
  /// UserError, one line a mistake; does nothing if there is none.
  void throw_if_any() const;

 private:
  std::vector<std::string> lines_;
};

/// The known name with the smallest edit distance, if it is near enough to be a typing mistake.
std::optional<std::string> nearest_name(std::string_view name, const std::vector<std::string>& known);

/// A value that may be left to the program.
template <class T>
struct Auto {
  std::optional<T> value;
  Auto() = default;
  Auto(T v) : value(std::move(v)) {}
  bool is_auto() const { return !value.has_value(); }
  T value_or(T fallback) const { return value.value_or(std::move(fallback)); }
};

/// Checks of one field.
struct FieldLimits {
  std::optional<double> min = std::nullopt, max = std::nullopt;
  std::vector<std::string> choices = {};
  bool required = false;  // absent is an error; "???" is one for every field
};

namespace config_detail {

template <class T>
concept Custom = requires(T t, const ConfigValue& v, const std::string& k, ConfigErrors& e) {
  t.from_config(v, k, e);
  { t.to_config() } -> std::same_as<ConfigValue>;
  T::type_name();
};

template <class T>
struct is_auto : std::false_type {};
template <class T>
struct is_auto<Auto<T>> : std::true_type {};
template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {};

template <class T>
std::string type_name() {
  if constexpr (std::same_as<T, bool>)
    return "true or false";
  else if constexpr (std::same_as<T, int64_t>)
    return "whole number";
  else if constexpr (std::same_as<T, double>)
    return "number";
  else if constexpr (std::same_as<T, std::string>)
    return "text";
  else if constexpr (std::same_as<T, Path>)
    return "path";
  else if constexpr (std::same_as<T, std::map<std::string, double>>)
    return "map of numbers";
  else if constexpr (is_auto<T>::value)
    return type_name<std::remove_reference_t<decltype(*T{}.value)>>() + " or auto";
  else if constexpr (is_vector<T>::value)
    return "list of " + type_name<typename T::value_type>();
  else
    return T::type_name();
}

bool read_scalar(const ConfigValue& value, bool& out);
bool read_scalar(const ConfigValue& value, int64_t& out);
bool read_scalar(const ConfigValue& value, double& out);
bool read_scalar(const ConfigValue& value, std::string& out);
bool read_scalar(const ConfigValue& value, Path& out);
std::string describe(const ConfigValue& value);
void check_limits(const ConfigValue& at, const std::string& key, double value, const FieldLimits& limits,
                  ConfigErrors& errors);
void check_limits(const ConfigValue& at, const std::string& key, const std::string& value, const FieldLimits& limits,
                  ConfigErrors& errors);

/// Keys given twice, in this map and those inside it.
void report_duplicates(const ConfigValue& value, const std::string& prefix, ConfigErrors& errors);

template <class T>
void read_value(const ConfigValue& value, const std::string& key, T& out, const FieldLimits& limits,
                ConfigErrors& errors, const std::string& expected = type_name<T>()) {
  if constexpr (Custom<T>) {
    out.from_config(value, key, errors);
  } else if constexpr (is_auto<T>::value) {
    if (value.kind == ConfigValue::Kind::scalar && !value.quoted && value.text == "auto") {
      out.value.reset();
    } else {
      std::remove_reference_t<decltype(*out.value)> inner{};
      read_value(value, key, inner, limits, errors, expected);
      out.value = std::move(inner);
    }
  } else if constexpr (is_vector<T>::value) {
    out.clear();
    if (value.kind == ConfigValue::Kind::null) return;
    if (value.kind != ConfigValue::Kind::list) {
      read_value(value, key, out.emplace_back(), limits, errors);
      return;
    }
    for (size_t i = 0; i < value.items.size(); ++i) {
      typename T::value_type item{};
      read_value(value.items[i], fmt::format("{}[{}]", key, i), item, limits, errors);
      out.push_back(std::move(item));
    }
  } else if constexpr (std::same_as<T, std::map<std::string, double>>) {
    out.clear();
    if (value.kind == ConfigValue::Kind::null) return;
    if (value.kind != ConfigValue::Kind::map) {
      errors.add(value.mark, key, "expected a map of names to numbers, got " + describe(value));
      return;
    }
    for (const auto& [name, entry] : value.entries) {
      const auto& known = limits.choices;
      if (!known.empty() && std::find(known.begin(), known.end(), name) == known.end())  // its value means nothing
        check_limits(entry, key + "." + name, name, FieldLimits{.choices = known}, errors);
      else
        read_value(entry, key + "." + name, out[name], FieldLimits{.min = limits.min, .max = limits.max}, errors);
    }
  } else {
    T parsed{};
    if (value.kind != ConfigValue::Kind::scalar || !read_scalar(value, parsed)) {
      errors.add(value.mark, key, fmt::format("expected {}, got {}", expected, describe(value)));
      return;
    }
    out = std::move(parsed);
    if constexpr (std::same_as<T, int64_t> || std::same_as<T, double>)
      check_limits(value, key, static_cast<double>(out), limits, errors);
    if constexpr (std::same_as<T, std::string>) check_limits(value, key, out, limits, errors);
  }
}

template <class T>
ConfigValue write_value(const T& value) {
  if constexpr (Custom<T>) {
    return value.to_config();
  } else if constexpr (is_auto<T>::value) {
    return value.value ? write_value(*value.value) : ConfigValue::scalar("auto");
  } else if constexpr (is_vector<T>::value) {
    std::vector<ConfigValue> items;
    for (const auto& item : value) items.push_back(write_value(item));
    return ConfigValue::list(std::move(items));
  } else if constexpr (std::same_as<T, std::map<std::string, double>>) {
    std::vector<std::pair<std::string, ConfigValue>> entries;
    for (const auto& [name, number] : value) entries.emplace_back(name, write_value(number));
    return ConfigValue::map(std::move(entries));
  } else if constexpr (std::same_as<T, bool>) {
    return ConfigValue::scalar(value ? "true" : "false");
  } else if constexpr (std::same_as<T, int64_t>) {
    return ConfigValue::scalar(std::to_string(value));
  } else if constexpr (std::same_as<T, double>) {
    return ConfigValue::scalar(format_number(value));
  } else if constexpr (std::same_as<T, Path>) {
    return ConfigValue::scalar(value.string(), true);
  } else {
    return ConfigValue::scalar(value, true);
  }
}

}  // namespace config_detail

/// Visitor that fills a struct from a map.
class ConfigReader {
 public:
  ConfigReader(const ConfigValue& map, std::string prefix, ConfigErrors& errors);
  /// Reports keys that no field took; call it after visit().
  void finish();

  template <class T>
  void field(const char* name, T& value, const char* /*help*/, const FieldLimits& limits = {}) {
    const ConfigValue* found = take(name);
    if (found != nullptr && !is_missing_marker(*found)) {
      config_detail::read_value(*found, prefix_ + name, value, limits, errors_);
    } else if (found != nullptr || limits.required) {
      errors_.add(found != nullptr ? found->mark : map_.mark, prefix_ + name, "must be given");
    }
  }
  template <class T>
  void section(const char* name, T& options, const char* /*help*/) {
    const ConfigValue* found = take(name);
    ConfigValue empty = ConfigValue::map({});
    empty.mark = found != nullptr ? found->mark : map_.mark;
    if (found == nullptr || found->kind == ConfigValue::Kind::null) found = &empty;
    ConfigReader reader(*found, prefix_ + name + ".", errors_);
    options.visit(reader);
    reader.finish();
  }

 private:
  const ConfigValue* take(const char* name);
  static bool is_missing_marker(const ConfigValue& value);

  const ConfigValue& map_;
  std::string prefix_;
  ConfigErrors& errors_;
  std::vector<std::string> known_;
};

/// Visitor that writes a struct as a map.
class ConfigWriter {
 public:
  template <class T>
  void field(const char* name, T& value, const char* /*help*/, const FieldLimits& /*limits*/ = {}) {
    map_.entries.emplace_back(name, config_detail::write_value(value));
  }
  template <class T>
  void section(const char* name, T& options, const char* /*help*/) {
    ConfigWriter inner;
    options.visit(inner);
    map_.entries.emplace_back(name, inner.take());
  }
  ConfigValue take() { return std::move(map_); }

 private:
  ConfigValue map_ = ConfigValue::map({});
};

/// Visitor that writes the reference page: one Markdown table row a field; the keys of a struct, then its sections.
class ConfigDocs {
 public:
  template <class T>
  void field(const char* name, T& value, const char* help, const FieldLimits& limits = {}) {
    row(prefix_ + name, config_detail::type_name<T>(), config_detail::write_value(value), help, limits);
  }
  template <class T>
  void section(const char* name, T& options, const char* help) {
    ConfigDocs inner;
    inner.prefix_ = prefix_ + name + ".";
    options.visit(inner);
    sections_ += heading(prefix_ + name, help) + inner.markdown();
  }
  std::string markdown() const { return rows_ + sections_; }

 private:
  void row(const std::string& key, const std::string& type, const ConfigValue& value, const char* help,
           const FieldLimits& limits);
  static std::string heading(const std::string& key, const char* help);

  std::string rows_, sections_, prefix_;
};

/// Throws UserError with every mistake.
template <class Options>
Options read_config(const ConfigValue& tree) {
  Options options;
  ConfigErrors errors;
  config_detail::report_duplicates(tree, "", errors);
  ConfigReader reader(tree, "", errors);
  options.visit(reader);
  reader.finish();
  errors.throw_if_any();
  return options;
}

template <class Options>
ConfigValue write_config(const Options& options) {
  Options copy = options;
  ConfigWriter writer;
  copy.visit(writer);
  return writer.take();
}

}  // namespace crumb
