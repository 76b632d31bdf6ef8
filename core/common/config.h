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
// Field types:
//   bool, int64_t (10M, 16k), double (3%), std::string, Path (relative to the file it is written in)
//   Auto<T>, WordOr<T, "self">        a value, or the word that stands for none
//   std::optional<T>                  a value that may be absent
//   std::vector<T>                    one value stands for a list of one
//   NamedList<T>                      a map of any names to T, in the order of the file; std::map<std::string, double>
//   a struct with visit()             a map of its keys. With
//                                       static constexpr const char* kShort = "path";
//                                     a value that is no map stands for that key, the others at their defaults
//   std::variant of scalars and at most one struct     a map is the struct, anything else the first that reads it
//   std::variant of structs, each with                 one of several algorithms: its key `name` says which, and the
//     static constexpr const char* kName = "gptq";     other keys are those of its struct
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "core/common/config_value.h"
#include "core/common/quantity.h"

namespace crumb {

/// Text as the argument of a template.
template <size_t N>
struct FixedText {
  char text[N];
  constexpr FixedText(const char (&from)[N]) { std::copy_n(from, N, text); }
};

/// A value, or the word that stands for having none.
template <class T, FixedText kText>
struct WordOr {
  using Inner = T;
  static constexpr const char* word() { return kText.text; }

  std::optional<T> value;
  WordOr() = default;
  WordOr(T v) : value(std::move(v)) {}
  bool is_word() const { return !value.has_value(); }
  T value_or(T fallback) const { return value.value_or(std::move(fallback)); }
};

/// A value that may be left to the program.
template <class T>
struct Auto : WordOr<T, "auto"> {
  using WordOr<T, "auto">::WordOr;
  bool is_auto() const { return this->is_word(); }
};

template <class T>
using NamedList = std::vector<std::pair<std::string, T>>;

/// Checks of one field.
struct FieldLimits {
  std::optional<double> min = std::nullopt, max = std::nullopt;
  std::vector<std::string> choices = {};
  bool required = false;  // absent is an error; "???" is one for every field
};

class ConfigReader;
class ConfigWriter;
class ConfigDocs;

namespace config_detail {

template <class T>
concept HasWord = requires {
  T::word();
};
template <class T>
concept Options = requires(T t, ConfigReader& reader) {
  t.visit(reader);
};
template <class T>
concept HasShort = Options<T> && requires {
  T::kShort;
};

template <class T>
struct is_optional : std::false_type {};
template <class T>
struct is_optional<std::optional<T>> : std::true_type {};
template <class T>
struct is_list : std::false_type {};
template <class T>
struct is_list<std::vector<T>> : std::true_type {};
template <class T>
struct is_named_list : std::false_type {};
template <class T>
struct is_named_list<NamedList<T>> : std::true_type {};
template <class T>
struct is_variant : std::false_type {};
template <class... Ts>
struct is_variant<std::variant<Ts...>> : std::true_type {};
template <class T>
struct has_named_alternatives : std::false_type {};
template <class... Ts>
requires(requires { Ts::kName; } && ...) struct has_named_alternatives<std::variant<Ts...>> : std::true_type {
};

/// Visitor that collects the keys of a struct.
class KeyNames {
 public:
  template <class T>
  void field(const char* name, T& /*value*/, const char* /*help*/, const FieldLimits& /*limits*/ = {}) {
    names.emplace_back(name);
  }
  template <class T>
  void section(const char* name, T& /*options*/, const char* /*help*/) {
    names.emplace_back(name);
  }
  void check(const char* /*name*/, const std::string& /*mistake*/) {}

  std::vector<std::string> names;
};

template <class T>
std::vector<std::string> key_names() {
  T options{};
  KeyNames keys;
  options.visit(keys);
  return keys.names;
}

/// The names that choose an alternative, and the keys that any of them has.
template <class... Ts>
std::vector<std::string> names_of(const std::variant<Ts...>& /*options*/) {
  return {Ts::kName...};
}
template <class... Ts>
std::vector<std::string> keys_of(const std::variant<Ts...>& /*options*/) {
  std::vector<std::string> keys;
  (std::ranges::copy(key_names<Ts>(), std::back_inserter(keys)), ...);
  return keys;
}

std::string braced(const std::vector<std::string>& names);

template <class T>
std::string type_name();

template <class... Ts>
std::string type_name_of(const std::variant<Ts...>& /*options*/) {
  std::string out;
  ((out += (out.empty() ? "" : " or ") + type_name<Ts>()), ...);
  return out;
}

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
    return "map of names to numbers";
  else if constexpr (HasWord<T>)
    return type_name<typename T::Inner>() + " or " + T::word();
  else if constexpr (is_optional<T>::value)
    return type_name<typename T::value_type>();
  else if constexpr (is_named_list<T>::value)
    return "map of names to " + type_name<typename T::value_type::second_type>();
  else if constexpr (is_list<T>::value)
    return "list of " + type_name<typename T::value_type>();
  else if constexpr (is_variant<T>::value)
    return type_name_of(T{});
  else if constexpr (HasShort<T>)
    return std::string(T::kShort) + " or " + braced(key_names<T>());
  else
    return braced(key_names<T>());
}

bool read_scalar(const ConfigValue& value, bool& out);
bool read_scalar(const ConfigValue& value, int64_t& out);
bool read_scalar(const ConfigValue& value, double& out);
bool read_scalar(const ConfigValue& value, std::string& out);
bool read_scalar(const ConfigValue& value, Path& out);
bool is_word(const ConfigValue& value, std::string_view word);
std::string describe(const ConfigValue& value);
void check_limits(const ConfigValue& at, const std::string& key, double value, const FieldLimits& limits,
                  ConfigErrors& errors);
void check_limits(const ConfigValue& at, const std::string& key, const std::string& value, const FieldLimits& limits,
                  ConfigErrors& errors);

/// Keys given twice, in this map and those inside it.
void report_duplicates(const ConfigValue& value, const std::string& prefix, ConfigErrors& errors);

template <class T>
void read_value(const ConfigValue& value, const std::string& key, T& out, const FieldLimits& limits,
                ConfigErrors& errors, const std::string& expected = type_name<T>());

template <Options T>
void read_options(const ConfigValue& value, const std::string& key, T& out, ConfigErrors& errors);

template <class... Ts>
void read_named(const ConfigValue& value, const std::string& key, std::variant<Ts...>& out, ConfigErrors& errors);

/// The first alternative that takes a value of this kind; if none does, the last says what it expected. A text that is
/// none of the choices is left to the alternatives after it.
template <class... Ts>
void read_by_kind(const ConfigValue& value, const std::string& key, std::variant<Ts...>& out, const FieldLimits& limits,
                  ConfigErrors& errors) {
  bool is_read = false;
  const auto try_one = [&]<class T>(T parsed) {
    if (is_read) return;
    if constexpr (Options<T>) {
      is_read = value.kind == ConfigValue::Kind::map;
      if (is_read) read_options(value, key, parsed, errors);
    } else {
      is_read = value.kind == ConfigValue::Kind::scalar && read_scalar(value, parsed);
      if constexpr (std::same_as<T, std::string>)
        is_read = is_read && (limits.choices.empty() || std::ranges::count(limits.choices, parsed) > 0);
      if (is_read) read_value(value, key, parsed, limits, errors);
    }
    if (is_read) out = std::move(parsed);
  };
  (try_one(Ts{}), ...);
  if (!is_read) errors.add(value.mark, key, fmt::format("expected {}, got {}", type_name_of(out), describe(value)));
}

template <class T>
void read_list(const ConfigValue& value, const std::string& key, std::vector<T>& out, const FieldLimits& limits,
               ConfigErrors& errors) {
  out.clear();
  if (value.kind == ConfigValue::Kind::null) return;
  if (value.kind != ConfigValue::Kind::list) {
    read_value(value, key, out.emplace_back(), limits, errors);
    return;
  }
  for (size_t i = 0; i < value.items.size(); ++i) {
    T item{};
    read_value(value.items[i], fmt::format("{}[{}]", key, i), item, limits, errors);
    out.push_back(std::move(item));
  }
}

/// Calls entry(name, value) for the entries of a map; names that are no choice are errors, and their values mean
/// nothing.
template <class Entry>
void read_map(const ConfigValue& value, const std::string& key, const std::string& expected, const FieldLimits& limits,
              ConfigErrors& errors, const Entry& entry) {
  if (value.kind == ConfigValue::Kind::null) return;
  if (value.kind != ConfigValue::Kind::map) {
    errors.add(value.mark, key, fmt::format("expected a {}, got {}", expected, describe(value)));
    return;
  }
  const auto& known = limits.choices;
  for (const auto& [name, found] : value.entries) {
    if (!known.empty() && std::ranges::find(known, name) == known.end())
      check_limits(found, key + "." + name, name, FieldLimits{.choices = known}, errors);
    else
      entry(name, found);
  }
}

template <class T>
void read_value(const ConfigValue& value, const std::string& key, T& out, const FieldLimits& limits,
                ConfigErrors& errors, const std::string& expected) {
  const FieldLimits numbers{.min = limits.min, .max = limits.max};
  if constexpr (HasWord<T>) {
    if (is_word(value, T::word())) {
      out.value.reset();
    } else {
      typename T::Inner inner{};
      read_value(value, key, inner, limits, errors, expected);
      out.value = std::move(inner);
    }
  } else if constexpr (is_optional<T>::value) {
    read_value(value, key, out.emplace(), limits, errors, expected);
  } else if constexpr (is_named_list<T>::value) {
    out.clear();
    read_map(value, key, expected, limits, errors, [&](const std::string& name, const ConfigValue& entry) {
      out.emplace_back(name, typename T::value_type::second_type{});
      read_value(entry, key + "." + name, out.back().second, numbers, errors);
    });
  } else if constexpr (std::same_as<T, std::map<std::string, double>>) {
    out.clear();
    read_map(value, key, expected, limits, errors, [&](const std::string& name, const ConfigValue& entry) {
      read_value(entry, key + "." + name, out[name], numbers, errors);
    });
  } else if constexpr (is_list<T>::value) {
    read_list(value, key, out, limits, errors);
  } else if constexpr (has_named_alternatives<T>::value) {
    read_named(value, key, out, errors);
  } else if constexpr (is_variant<T>::value) {
    read_by_kind(value, key, out, limits, errors);
  } else if constexpr (HasShort<T>) {
    read_options(value.kind == ConfigValue::Kind::map
                     ? value
                     : ConfigValue::map_at(value.mark, {{std::string(T::kShort), value}}),
                 key, out, errors);
  } else if constexpr (Options<T>) {
    read_options(value, key, out, errors);
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

template <Options T>
ConfigValue write_options(const T& options);
ConfigValue short_or_whole(ConfigValue whole, const ConfigValue& usual, std::string_view short_key);

template <class T>
ConfigValue write_value(const T& value) {
  if constexpr (HasWord<T>) {
    return value.value ? write_value(*value.value) : ConfigValue::scalar(T::word());
  } else if constexpr (is_optional<T>::value) {
    return value ? write_value(*value) : ConfigValue();
  } else if constexpr (is_named_list<T>::value || std::same_as<T, std::map<std::string, double>>) {
    auto map = ConfigValue::map({});
    for (const auto& [name, entry] : value) map.entries.emplace_back(name, write_value(entry));
    return map;
  } else if constexpr (is_list<T>::value) {
    auto list = ConfigValue::list({});
    for (const auto& item : value) list.items.push_back(write_value(item));
    return list;
  } else if constexpr (is_variant<T>::value) {
    return std::visit(
        []<class One>(const One& one) {
          auto written = write_value(one);
          if constexpr (has_named_alternatives<T>::value)
            written.entries.emplace(written.entries.begin(), "name", ConfigValue::scalar(One::kName));
          return written;
        },
        value);
  } else if constexpr (HasShort<T>) {
    return short_or_whole(write_options(value), write_options(T{}), T::kShort);
  } else if constexpr (Options<T>) {
    return write_options(value);
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
  /// Reports keys that no field took; call it after visit(). Those among `others` mean something elsewhere only: they
  /// are left out with a warning that says `why`.
  void finish(const std::vector<std::string>& others = {}, const std::string& why = "");

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
    const ConfigValue empty = ConfigValue::map_at(found != nullptr ? found->mark : map_.mark, {});
    if (found == nullptr || found->kind == ConfigValue::Kind::null) found = &empty;
    config_detail::read_value(*found, prefix_ + name, options, {}, errors_);
  }
  /// What is wrong with a field that was visited before; empty: nothing.
  void check(const char* name, const std::string& mistake);

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
    ConfigValue written = config_detail::write_value(value);
    if (written.kind == ConfigValue::Kind::null) return;  // absent
    map_.entries.emplace_back(name, std::move(written));
  }
  template <class T>
  void section(const char* name, T& options, const char* help) {
    field(name, options, help);
  }
  void check(const char* /*name*/, const std::string& /*mistake*/) {}
  ConfigValue take() { return std::move(map_); }

 private:
  ConfigValue map_ = ConfigValue::map({});
};

/// Visitor that writes the reference page: one Markdown table row a field; the keys of a struct, then its sections.
/// Where `name` chooses one of several structs, their keys make one table, which says whose a key is.
class ConfigDocs {
 public:
  template <class T>
  void field(const char* name, T& value, const char* help, const FieldLimits& limits = {}) {
    row(prefix_ + name, config_detail::type_name<T>(), config_detail::write_value(value), help, limits);
    nested_rows<T>(prefix_ + name);
  }
  template <class T>
  void section(const char* name, T& options, const char* help) {
    ConfigDocs inner;
    inner.prefix_ = prefix_ + name + ".";
    if constexpr (config_detail::has_named_alternatives<T>::value)
      inner.alternatives(options);
    else
      options.visit(inner);
    sections_ += heading(prefix_ + name, help) + inner.markdown();
  }
  void check(const char* /*name*/, const std::string& /*mistake*/) {}
  std::string markdown() const;

 private:
  struct Row {
    std::string key, text, help;
    std::vector<std::string> names;  // of the alternatives that have it, if it is not for all
  };

  void row(const std::string& key, const std::string& type, const ConfigValue& value, const char* help,
           const FieldLimits& limits);
  static std::string heading(const std::string& key, const char* help);
  void name_row(const std::vector<std::string>& names, const char* usual);
  void merge(const ConfigDocs& docs, const char* name, size_t alternatives);

  /// The keys of structs inside a value.
  template <class T>
  void nested_rows(const std::string& key) {
    if constexpr (config_detail::is_named_list<T>::value) {
      nested_rows<typename T::value_type::second_type>(key + ".NAME");
    } else if constexpr (config_detail::is_list<T>::value) {
      nested_rows<typename T::value_type>(key + "[]");
    } else if constexpr (config_detail::is_variant<T>::value) {
      [&]<class... Ts>(std::type_identity<std::variant<Ts...>>) {
        (nested_rows<Ts>(key), ...);
      }(std::type_identity<T>());
    } else if constexpr (config_detail::Options<T>) {
      ConfigDocs inner;
      inner.prefix_ = key + ".";
      T options{};
      options.visit(inner);
      rows_.insert(rows_.end(), inner.rows_.begin(), inner.rows_.end());
    }
  }

  template <class... Ts>
  void alternatives(const std::variant<Ts...>& usual) {
    name_row({Ts::kName...}, std::visit([](const auto& one) { return one.kName; }, usual));
    const auto add = [&]<class T>(T options) {
      ConfigDocs inner;
      inner.prefix_ = prefix_;
      options.visit(inner);
      merge(inner, T::kName, sizeof...(Ts));
    };
    (add(Ts{}), ...);
  }

  std::vector<Row> rows_;
  std::string sections_, prefix_;
};

namespace config_detail {

template <Options T>
void read_options(const ConfigValue& value, const std::string& key, T& out, ConfigErrors& errors) {
  ConfigReader reader(value, key.empty() ? "" : key + ".", errors);
  out.visit(reader);
  reader.finish();
}

template <class... Ts>
void read_named(const ConfigValue& value, const std::string& key, std::variant<Ts...>& out, ConfigErrors& errors) {
  ConfigReader reader(value, key + ".", errors);
  std::string name = std::visit([](const auto& one) { return one.kName; }, out);
  reader.field("name", name, "", {.choices = names_of(out)});
  bool is_known = false;
  const auto try_one = [&]<class T>(T options) {
    if (name != T::kName) return;
    is_known = true;
    if (!std::holds_alternative<T>(out)) out = std::move(options);
  };
  (try_one(Ts{}), ...);
  if (!is_known) return;  // which keys there are is not known either
  std::visit([&](auto& one) { one.visit(reader); }, out);
  reader.finish(keys_of(out), "has no meaning with name: " + name);
}

template <Options T>
ConfigValue write_options(const T& options) {
  T copy = options;
  ConfigWriter writer;
  copy.visit(writer);
  return writer.take();
}

}  // namespace config_detail

/// Throws UserError with every mistake.
template <class Options>
Options read_config(const ConfigValue& tree) {
  Options options;
  ConfigErrors errors;
  config_detail::report_duplicates(tree, "", errors);
  config_detail::read_options(tree, "", options, errors);
  errors.throw_if_any();
  return options;
}

template <class Options>
ConfigValue write_config(const Options& options) {
  return config_detail::write_options(options);
}

}  // namespace crumb
