#include "jobs/train_job.h"

#include <algorithm>
#include <functional>
#include <set>

#include "core/common/error.h"

namespace crumb::jobs {
namespace {

/// Whether two values mean the same: 12 and "12" may differ in what wrote them only.
bool is_same(const ConfigValue& a, const ConfigValue& b) {
  const auto same_entry = [](const auto& x, const auto& y) {
    return x.first == y.first && is_same(x.second, y.second);
  };
  return a.kind == b.kind && a.text == b.text && std::ranges::equal(a.items, b.items, is_same) &&
         std::ranges::equal(a.entries, b.entries, same_entry);
}

bool is_auto(const ConfigValue& value) {
  return value.kind == ConfigValue::Kind::scalar && !value.quoted && value.text == "auto";
}
bool is_auto_word(const std::string& key, const ConfigValue& value) {
  return is_auto(value) || ((key == "device" || key == "compute") && value.text == "auto");
}

/// Calls `visit` for each leaf of `now` with the stored value of the same key, if any.
void for_each_leaf(const ConfigValue* stored, ConfigValue& now, const std::string& prefix,
                   const std::function<void(const std::string&, const ConfigValue*, ConfigValue&)>& visit) {
  for (auto& [key, value] : now.entries) {
    const ConfigValue* old = stored != nullptr ? stored->find(key) : nullptr;
    const bool is_section = value.kind == ConfigValue::Kind::map && prefix.empty() && key != "model";
    if (is_section) {
      for_each_leaf(old, value, key + ".", visit);
    } else {
      visit(prefix + key, old, value);
    }
  }
}

}  // namespace

bool ModelChoice::is_gguf() const {
  return !is_random() && source().extension() != ".json" && is_file(source());  // --dry-run takes a config.json alone
}

Path ModelChoice::config_folder() const {
  const Path from = source();
  return from.extension() == ".json" ? from.parent_path() : from;
}

std::optional<Path> TrainJob::start_folder() const {
  if (!quantizes()) return std::nullopt;
  if (qat()->makes_start()) return output / kStartFolder;
  return qat()->start() != nullptr ? std::optional(*qat()->start()) : std::nullopt;
}

std::vector<std::string> changes_not_allowed(const ConfigValue& stored, const ConfigValue& now) {
  static const std::set<std::string> allowed = {"schedule.tokens", "validate.every", "checkpoint.every",
                                                "checkpoint.keep", "threads"};
  std::vector<std::string> changes;
  std::map<std::string, ConfigValue> defaults;
  ConfigValue usual = write_config(TrainJob()), copy = now;
  for_each_leaf(nullptr, usual, "",
                [&](const std::string& key, const ConfigValue*, ConfigValue& value) { defaults.emplace(key, value); });
  for_each_leaf(&stored, copy, "", [&](const std::string& key, const ConfigValue* old, ConfigValue& value) {
    if (is_auto_word(key, value) || allowed.contains(key)) return;
    if (old == nullptr && defaults.contains(key)) old = &defaults.at(key);
    if (old != nullptr && is_same(*old, value)) return;
    changes.push_back(
        fmt::format("{}: {}, now {}", key, old != nullptr ? to_yaml_line(*old) : "nothing", to_yaml_line(value)));
  });
  return changes;
}

ConfigValue with_stored_autos(const ConfigValue& stored, const ConfigValue& now) {
  ConfigValue merged = now;
  for_each_leaf(&stored, merged, "", [](const std::string& key, const ConfigValue* old, ConfigValue& value) {
    if (is_auto_word(key, value) && old != nullptr) value = *old;
  });
  return merged;
}

bool has_teacher(const TrainJob& job) { return job.quantizes() || distill::needs_teacher(job.objective); }

std::map<std::string, quant::QuantFormat> planned_formats(const TrainJob& job, const arch::DecoderSpec& spec) {
  if (!job.quantizes()) return {};
  return job.qat()->linears.formats_of(spec);
}

}  // namespace crumb::jobs
