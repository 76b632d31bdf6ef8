#include "train/options.h"

namespace crumb::train {
namespace {

struct MixEntry {
  Path path;
  double weight = -1;
  std::string format = "text";

  template <class V>
  void visit(V& v) {
    v.field("path", path, "the file", {.required = true});
    v.field("weight", weight, "share of the tokens", {.min = 0});
    v.field("format", format, "what the file holds", {.choices = {"text"}});
  }
};

TextSource read_source(const ConfigValue& value, const std::string& key, ConfigErrors& errors) {
  TextSource source;
  if (value.kind != ConfigValue::Kind::map) {
    config_detail::read_value(value, key, source.path, {}, errors);
    return source;
  }
  MixEntry entry;
  ConfigReader reader(value, key + ".", errors);
  entry.visit(reader);
  reader.finish();
  return {entry.path, entry.weight};
}

}  // namespace

void TextMix::from_config(const ConfigValue& value, const std::string& key, ConfigErrors& errors) {
  sources.clear();
  if (value.kind != ConfigValue::Kind::list) {
    sources.push_back(read_source(value, key, errors));
    return;
  }
  for (size_t i = 0; i < value.items.size(); ++i)
    sources.push_back(read_source(value.items[i], fmt::format("{}[{}]", key, i), errors));
  if (sources.empty()) errors.add(value.mark, key, "no file given");
  size_t weighted = 0;
  double sum = 0;
  for (const auto& source : sources) {
    weighted += source.is_weighted() ? 1 : 0;
    sum += source.is_weighted() ? source.weight : 0;
  }
  if (weighted > 0 && weighted < sources.size()) errors.add(value.mark, key, "either every entry has a weight or none");
  if (weighted > 0 && !(sum > 0)) errors.add(value.mark, key, "the weights add up to 0");
}

ConfigValue TextMix::to_config() const {
  std::vector<ConfigValue> items;
  for (const auto& source : sources) {
    ConfigValue path = config_detail::write_value(source.path);
    items.push_back(source.is_weighted() ? ConfigValue::map({{"path", std::move(path)},
                                                             {"weight", config_detail::write_value(source.weight)}})
                                         : std::move(path));
  }
  return ConfigValue::list(std::move(items));
}

void ValidationText::from_config(const ConfigValue& value, const std::string& key, ConfigErrors& errors) {
  path.clear();
  if (value.kind == ConfigValue::Kind::scalar && !value.quoted && parse_number(value.text)) {
    config_detail::read_value(value, key, share, {.min = 0, .max = 0.5}, errors);
  } else {
    config_detail::read_value(value, key, path, {}, errors);
  }
}

ConfigValue ValidationText::to_config() const {
  return is_share() ? config_detail::write_value(share) : config_detail::write_value(path);
}

}  // namespace crumb::train
