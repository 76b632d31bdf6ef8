#include "core/common/config.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>

#include "core/common/log.h"

namespace crumb {
namespace {

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        else
          out += c;
    }
  }
  return out + "\"";
}

// Names of options stand as they are; whatever else a map may hold as a key is quoted.
std::string key_text(const std::string& key) {
  const bool is_null = key == "null" || key == "Null" || key == "NULL";
  const bool plain = !key.empty() && !is_null && std::all_of(key.begin(), key.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.';
  });
  return plain ? key : quote(key);
}

void write_yaml(const ConfigValue& value, int indent, std::string& out) {
  const std::string pad(static_cast<size_t>(indent), ' ');
  switch (value.kind) {
    case ConfigValue::Kind::null:
      out += " null\n";
      break;
    case ConfigValue::Kind::scalar:
      out += " " + (value.quoted ? quote(value.text) : value.text) + "\n";
      break;
    case ConfigValue::Kind::list:
      if (value.items.empty())
        out += " []\n";
      else
        out += "\n";
      for (const auto& item : value.items) {
        if (item.kind == ConfigValue::Kind::map && !item.entries.empty()) {
          out += pad + "-\n";
          std::string inner;
          write_yaml(item, indent + 2, inner);
          out += inner.substr(1);
        } else {
          out += pad + "-";
          write_yaml(item, indent + 2, out);
        }
      }
      break;
    case ConfigValue::Kind::map:
      if (value.entries.empty())
        out += " {}\n";
      else
        out += "\n";
      for (const auto& [key, item] : value.entries) {
        out += pad + key_text(key) + ":";
        write_yaml(item, indent + 2, out);
      }
      break;
  }
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({substitute, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

const ConfigValue* ConfigValue::find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name == key) return &value;
  }
  return nullptr;
}

ConfigValue* ConfigValue::find(std::string_view key) {
  return const_cast<ConfigValue*>(std::as_const(*this).find(key));
}

ConfigValue ConfigValue::scalar(std::string text, bool quoted) {
  ConfigValue value;
  value.kind = Kind::scalar;
  value.text = std::move(text);
  value.quoted = quoted;
  return value;
}

ConfigValue ConfigValue::list(std::vector<ConfigValue> items) {
  ConfigValue value;
  value.kind = Kind::list;
  value.items = std::move(items);
  return value;
}

ConfigValue ConfigValue::map(std::vector<std::pair<std::string, ConfigValue>> entries) {
  ConfigValue value;
  value.kind = Kind::map;
  value.entries = std::move(entries);
  return value;
}

ConfigValue ConfigValue::map_at(const ConfigMark& mark, std::vector<std::pair<std::string, ConfigValue>> entries) {
  ConfigValue value = map(std::move(entries));
  value.mark = mark;
  return value;
}

ConfigValue parse_yaml_file(const Path& path) {
  const Path folder = path.has_parent_path() ? path.parent_path() : Path(".");
  ConfigValue root = parse_yaml_text(read_text(path), path.string(), folder);
  if (root.kind == ConfigValue::Kind::null) {
    root = ConfigValue::map({});
    root.mark = {path.string(), 1, 1, folder};
  }
  CRUMB_CHECK(root.kind == ConfigValue::Kind::map, "{}: expected a map of keys to values", path.string());
  return root;
}

void apply_override(ConfigValue& root, const std::string& assignment) {
  const size_t equals = assignment.find('=');
  CRUMB_CHECK(equals != std::string::npos && equals > 0, "command line: \"{}\": expected key=value", assignment);
  const std::string key = assignment.substr(0, equals);
  ConfigValue value = parse_yaml_text(assignment.substr(equals + 1), "command line", ".");
  const std::function<void(ConfigValue&)> unmark = [&](ConfigValue& v) {
    v.mark = v.key_mark = {"command line", 0, 0, "."};
    for (auto& item : v.items) unmark(item);
    for (auto& [name, item] : v.entries) unmark(item);
  };
  unmark(value);
  ConfigValue* at = &root;
  size_t begin = 0;
  int level = 0;
  for (;;) {
    const size_t dot = key.find('.', begin);
    const std::string part = key.substr(begin, dot == std::string::npos ? dot : dot - begin);
    CRUMB_CHECK(!part.empty(), "command line: {}: not a dotted key", key);
    CRUMB_CHECK(++level <= kMostConfigLevels, "command line: {}...: nested deeper than {} levels", key.substr(0, 40),
                kMostConfigLevels);
    if (at->kind == ConfigValue::Kind::null) at->kind = ConfigValue::Kind::map;
    CRUMB_CHECK(at->kind == ConfigValue::Kind::map, "command line: {}: {} holds a value, not keys", key,
                key.substr(0, begin == 0 ? 0 : begin - 1));
    ConfigValue* next = at->find(part);
    if (next == nullptr) {
      ConfigValue empty;
      empty.mark = empty.key_mark = {"command line", 0, 0, "."};
      at->entries.emplace_back(part, std::move(empty));
      next = &at->entries.back().second;
    }
    at = next;
    if (dot == std::string::npos) break;
    begin = dot + 1;
  }
  *at = std::move(value);
}

void apply_overrides(ConfigValue& root, const std::vector<std::string>& assignments) {
  std::vector<std::string> mistakes;
  for (const auto& assignment : assignments) {
    try {
      apply_override(root, assignment);
    } catch (const UserError& e) {
      mistakes.emplace_back(e.what());
    }
  }
  if (!mistakes.empty()) throw UserError(std::move(mistakes));
}

std::string to_yaml_line(const ConfigValue& value) {
  std::vector<std::string> parts;
  switch (value.kind) {
    case ConfigValue::Kind::null:
      return "null";
    case ConfigValue::Kind::scalar:
      return value.quoted ? quote(value.text) : value.text;
    case ConfigValue::Kind::list:
      for (const auto& item : value.items) parts.push_back(to_yaml_line(item));
      return fmt::format("[{}]", fmt::join(parts, ", "));
    default:
      for (const auto& [key, item] : value.entries) parts.push_back(key_text(key) + ": " + to_yaml_line(item));
      return fmt::format("{{{}}}", fmt::join(parts, ", "));
  }
}

std::string to_yaml(const ConfigValue& value) {
  std::string out;
  write_yaml(value, 0, out);
  return value.kind == ConfigValue::Kind::map && !value.entries.empty() ? out.substr(1) : out;
}

void ConfigErrors::add(const ConfigMark& mark, const std::string& key, const std::string& what) {
  lines_.push_back(mark.file.empty() ? fmt::format("{}: {}", key, what)
                                     : fmt::format("{}: {}: {}", mark.text(), key, what));
}

void ConfigErrors::throw_if_any() const {
  if (!lines_.empty()) throw UserError(lines_);
}

std::optional<std::string> nearest_name(std::string_view name, const std::vector<std::string>& known) {
  const std::string* best = nullptr;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const auto& candidate : known) {
    const size_t distance = edit_distance(name, candidate);
    // Two letters are no typing mistake where that changes every letter.
    if (distance < best_distance && distance < std::max(name.size(), candidate.size())) {
      best_distance = distance;
      best = &candidate;
    }
  }
  return best != nullptr ? std::optional<std::string>(*best) : std::nullopt;
}

namespace config_detail {

std::string braced(const std::vector<std::string>& names) { return fmt::format("{{{}}}", fmt::join(names, ", ")); }

bool is_word(const ConfigValue& value, std::string_view word) {
  return value.kind == ConfigValue::Kind::scalar && !value.quoted && value.text == word;
}

/// The value of `short_key` alone where everything else is as usual; nothing where that is absent, too.
ConfigValue short_or_whole(ConfigValue whole, const ConfigValue& usual, std::string_view short_key) {
  for (const auto& [key, value] : whole.entries) {
    if (key == short_key) continue;
    const ConfigValue* other = usual.find(key);
    if (other == nullptr || to_yaml_line(*other) != to_yaml_line(value)) return whole;
  }
  ConfigValue* value = whole.find(short_key);
  return value != nullptr ? std::move(*value) : ConfigValue();
}

bool read_scalar(const ConfigValue& value, bool& out) {
  if (value.quoted || (value.text != "true" && value.text != "false")) return false;
  out = value.text == "true";
  return true;
}

bool read_scalar(const ConfigValue& value, int64_t& out) {
  const auto count = value.quoted ? std::nullopt : parse_count(value.text);
  if (count) out = *count;
  return count.has_value();
}

bool read_scalar(const ConfigValue& value, double& out) {
  auto number = value.quoted ? std::nullopt : parse_number(value.text);
  if (!number && !value.quoted) {
    if (const auto count = parse_count(value.text)) number = static_cast<double>(*count);
  }
  if (number) out = *number;
  return number.has_value();
}

bool read_scalar(const ConfigValue& value, std::string& out) {
  out = value.text;
  return true;
}

bool read_scalar(const ConfigValue& value, Path& out) {
  if (value.text.empty()) return false;
  const Path path(value.text);
  out = path.is_absolute() || value.mark.folder.empty() || value.mark.folder == "." ? path : value.mark.folder / path;
  return true;
}

std::string describe(const ConfigValue& value) {
  switch (value.kind) {
    case ConfigValue::Kind::null:
      return "nothing";
    case ConfigValue::Kind::list:
      return "a list";
    case ConfigValue::Kind::map:
      return "a map";
    default:
      return "\"" + value.text + "\"";
  }
}

void check_limits(const ConfigValue& at, const std::string& key, double value, const FieldLimits& limits,
                  ConfigErrors& errors) {
  if ((limits.min && value < *limits.min) || (limits.max && value > *limits.max)) {
    const std::string range = limits.min && limits.max ? fmt::format("{} to {}", *limits.min, *limits.max)
                              : limits.min             ? fmt::format("at least {}", *limits.min)
                                                       : fmt::format("at most {}", *limits.max);
    errors.add(at.mark, key, fmt::format("{} is out of range, expected {}", at.text, range));
  }
}

void check_limits(const ConfigValue& at, const std::string& key, const std::string& value, const FieldLimits& limits,
                  ConfigErrors& errors) {
  if (limits.choices.empty() || std::find(limits.choices.begin(), limits.choices.end(), value) != limits.choices.end())
    return;
  const auto near = nearest_name(value, limits.choices);
  errors.add(at.mark, key,
             fmt::format("unknown value \"{}\"{}; known: {}", value, near ? "; did you mean \"" + *near + "\"?" : "",
                         fmt::join(limits.choices, ", ")));
}

void report_duplicates(const ConfigValue& value, const std::string& prefix, ConfigErrors& errors) {
  for (size_t i = 0; i < value.items.size(); ++i)
    report_duplicates(value.items[i], fmt::format("{}[{}]", prefix, i), errors);
  std::set<std::string_view> seen;
  for (const auto& [key, entry] : value.entries) {
    const std::string dotted = prefix.empty() ? key : prefix + "." + key;
    if (!seen.insert(key).second) errors.add(entry.key_mark, dotted, "given twice");
    report_duplicates(entry, dotted, errors);
  }
}

}  // namespace config_detail

ConfigReader::ConfigReader(const ConfigValue& map, std::string prefix, ConfigErrors& errors)
    : map_(map), prefix_(std::move(prefix)), errors_(errors) {
  if (map_.kind != ConfigValue::Kind::map && map_.kind != ConfigValue::Kind::null) {
    errors_.add(map_.mark, prefix_.substr(0, prefix_.empty() ? 0 : prefix_.size() - 1),
                "expected keys, got " + config_detail::describe(map_));
  }
}

const ConfigValue* ConfigReader::take(const char* name) {
  known_.emplace_back(name);
  return map_.find(name);
}

bool ConfigReader::is_missing_marker(const ConfigValue& value) { return config_detail::is_word(value, "???"); }

void ConfigReader::check(const char* name, const std::string& mistake) {
  if (mistake.empty()) return;
  const ConfigValue* found = map_.find(name);
  errors_.add(found != nullptr ? found->mark : map_.mark, prefix_ + name, mistake);
}

void ConfigReader::finish(const std::vector<std::string>& others, const std::string& why) {
  for (const auto& [key, value] : map_.entries) {
    if (std::ranges::find(known_, key) != known_.end()) continue;
    if (std::ranges::find(others, key) != others.end()) {
      log_warning("{}{}{}: {}, it is left out", value.key_mark.text(), value.key_mark.file.empty() ? "" : ": ",
                  prefix_ + key, why);
      continue;
    }
    const auto near = nearest_name(key, known_);
    errors_.add(value.key_mark, prefix_ + key,
                fmt::format("unknown key{}; known: {}", near ? "; did you mean \"" + *near + "\"?" : "",
                            fmt::join(known_, ", ")));
  }
}

/// A bar would end the cell.
static std::string escaped(std::string_view cell) {
  std::string out;
  for (const char c : cell) out += c == '|' ? "\\|" : std::string(1, c);
  return out;
}

void ConfigDocs::row(const std::string& key, const std::string& type, const ConfigValue& value, const char* help,
                     const FieldLimits& limits) {
  const bool is_absent = value.kind == ConfigValue::Kind::null;
  const std::string fallback = limits.required ? "must be given" : is_absent ? "" : "`" + to_yaml_line(value) + "`";
  std::string range;
  if (!limits.choices.empty())
    range = fmt::format("{}", fmt::join(limits.choices, ", "));
  else if (limits.min && limits.max)
    range = fmt::format("{} to {}", *limits.min, *limits.max);
  else if (limits.min)
    range = fmt::format("at least {}", *limits.min);
  else if (limits.max)
    range = fmt::format("at most {}", *limits.max);
  rows_.push_back({key, fmt::format("| {} | {} | {} | ", type, escaped(fallback), range), escaped(help), {}});
}

void ConfigDocs::name_row(const std::vector<std::string>& names, const char* usual) {
  row(prefix_ + "name", "text", ConfigValue::scalar(usual), "which of them; the other keys depend on it",
      {.choices = names});
}

void ConfigDocs::merge(const ConfigDocs& docs, const char* name, size_t alternatives) {
  for (const Row& added : docs.rows_) {
    const auto same = [&](const Row& row) {
      return row.key == added.key && row.text == added.text && row.help == added.help;
    };
    auto found = std::ranges::find_if(rows_, same);
    if (found == rows_.end()) found = rows_.insert(rows_.end(), added);
    found->names.emplace_back(name);
    if (found->names.size() == alternatives) found->names.clear();  // it is everybody's
  }
  sections_ += docs.sections_;
}

std::string ConfigDocs::markdown() const {
  std::string out;
  for (const Row& row : rows_) {
    const std::string whose = row.names.empty() ? "" : fmt::format("{}: ", fmt::join(row.names, ", "));
    out += fmt::format("| `{}` {}{}{} |\n", row.key, row.text, whose, row.help);
  }
  return out + sections_;
}

std::string ConfigDocs::heading(const std::string& key, const char* help) {
  return fmt::format("\n### {}\n\n{}\n\n| key | type | default | allowed | meaning |\n|---|---|---|---|---|\n", key,
                     help);
}

}  // namespace crumb
