#include "jobs/train_job.h"

#include <functional>
#include <set>

#include "core/common/error.h"

namespace crumb::jobs {
namespace {

struct RandomModel {
  Path config, tokenizer;
  std::string init = "random";

  template <class V>
  void visit(V& v) {
    v.field("config", config, "folder with config.json, or the file", {.required = true});
    v.field("init", init, "first values", {.choices = {"random"}});
    v.field("tokenizer", tokenizer, "folder of the tokenizer files, if not that of the configuration");
  }
};

std::string text_of(const ConfigValue& value) {
  std::string text = to_yaml(value);
  for (char& c : text) c = c == '\n' ? ' ' : c;
  const size_t begin = text.find_first_not_of(' '), end = text.find_last_not_of(' ');
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
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

void ModelChoice::from_config(const ConfigValue& value, const std::string& key, ConfigErrors& errors) {
  *this = {};
  if (value.kind != ConfigValue::Kind::map) {
    config_detail::read_value(value, key, path, {}, errors);
    return;
  }
  RandomModel random;
  ConfigReader reader(value, key + ".", errors);
  random.visit(reader);
  reader.finish();
  path = random.config;
  tokenizer = random.tokenizer;
  is_random = true;
}

ConfigValue ModelChoice::to_config() const {
  if (!is_random) return config_detail::write_value(path);
  auto map = ConfigValue::map({{"config", config_detail::write_value(path)}, {"init", ConfigValue::scalar("random")}});
  if (!tokenizer.empty()) map.entries.emplace_back("tokenizer", config_detail::write_value(tokenizer));
  return map;
}

bool ModelChoice::is_gguf() const { return !is_random && is_file(path) && path.extension() != ".json"; }

Path ModelChoice::config_folder() const { return path.extension() == ".json" ? path.parent_path() : path; }

std::vector<std::string> changes_not_allowed(const ConfigValue& stored, const ConfigValue& now) {
  static const std::set<std::string> allowed = {"schedule.tokens", "validate.every", "checkpoint.every",
                                                "checkpoint.keep", "threads"};
  std::vector<std::string> changes;
  ConfigValue copy = now;
  for_each_leaf(&stored, copy, "", [&](const std::string& key, const ConfigValue* old, ConfigValue& value) {
    if (is_auto_word(key, value) || allowed.contains(key)) return;
    const std::string before = old != nullptr ? text_of(*old) : "nothing", after = text_of(value);
    if (before != after) changes.push_back(fmt::format("{}: {}, now {}", key, before, after));
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
  std::map<std::string, quant::QuantFormat> formats;
  if (!job.quantizes()) return formats;
  for (const auto& desc : arch::tensor_table(spec)) {
    if (quant::is_quantized(desc, job.method)) formats[desc.hf_name] = job.method.format();
  }
  return formats;
}

}  // namespace crumb::jobs
