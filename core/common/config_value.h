// Configuration as plain data: a YAML document, where each value stands in it, and the mistakes found.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/common/error.h"
#include "core/common/file.h"

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
  static ConfigValue map_at(const ConfigMark& mark, std::vector<std::pair<std::string, ConfigValue>> entries);
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
/// The same in one line: [a, b], {a: 1}.
std::string to_yaml_line(const ConfigValue& value);

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

}  // namespace crumb
