#include "quant/quantization_config.h"

#include <algorithm>
#include <utility>

#include "core/common/error.h"

namespace crumb::quant {
namespace {

using nlohmann::json;

constexpr int kVersion = 1;

json format_json(const QuantFormat& format) {
  return {{"grid", grid_name(format.grid)},
          {"bits", format.bits},
          {"symmetric", format.symmetric},
          {"group_size", format.group_size}};
}

QuantFormat most_frequent(const std::map<std::string, QuantFormat>& formats) {
  QuantFormat most;
  int64_t most_count = 0;
  for (const auto& [module, format] : formats) {
    const auto count = std::count_if(formats.begin(), formats.end(),
                                     [&wanted = format](const auto& entry) { return entry.second == wanted; });
    if (count > most_count) {
      most = format;
      most_count = count;
    }
  }
  return most;
}

template <class T>
T value_of(const json& object, const json& defaults, const char* key, const std::string& where) {
  const json& source = object.contains(key) ? object : defaults;
  try {
    return source.at(key).get<T>();
  } catch (const json::exception&) {
    user_error("{}: quantization_config: {} is missing or of the wrong type", where, key);
  }
}

}  // namespace

json make_quantization_config(const std::map<std::string, QuantFormat>& formats,
                              const std::vector<std::string>& ignore) {
  const auto common = most_frequent(formats);
  json result = format_json(common);
  result["quant_method"] = "crumb";
  result["version"] = kVersion;
  result["activations"] = "none";
  result["ignore"] = ignore;
  result["modules"] = json::object();
  for (const auto& [module, format] : formats) {
    if (format != common) result["modules"][module] = format_json(format);
  }
  return result;
}

bool is_codes_config(const json& config, const std::string& where) {
  CRUMB_CHECK(!config.contains("quantization"),
              "{}: the weights are quantized by MLX, which Crumb does not read; give the unquantized model", where);
  const char* key = config.contains("compression_config") ? "compression_config" : "quantization_config";
  const auto it = config.find(key);
  if (it == config.end() || it->is_null()) return false;
  CRUMB_CHECK(it->is_object(), "{}: {} is not an object", where, key);
  const auto method = it->contains("quant_method") ? it->at("quant_method") : json("another program");
  CRUMB_CHECK(method == "crumb",
              "{}: the weights are quantized by {}, which Crumb does not read; give the unquantized model", where,
              method.is_string() ? method.get<std::string>() : method.dump());
  const int version = value_of<int>(*it, *it, "version", where);
  CRUMB_CHECK(version == kVersion, "{}: quantization_config has version {}; this program reads {}", where, version,
              kVersion);
  return true;
}

QuantFormat format_of_module(const json& config, const std::string& module, const std::string& where) {
  const json& common = config.at("quantization_config");
  const json none = json::object();
  const auto modules = common.find("modules");
  const bool overridden = modules != common.end() && modules->is_object() && modules->contains(module);
  const json& own = overridden ? modules->at(module) : none;
  QuantFormat format;
  const auto grid = value_of<std::string>(own, common, "grid", where);
  CRUMB_CHECK(grid == "seq" || grid == "int", "{}: quantization_config: grid '{}' is not known; known ones: seq, int",
              where, grid);
  format.grid = grid == "seq" ? Grid::seq : Grid::intn;
  format.bits = value_of<int>(own, common, "bits", where);
  CRUMB_CHECK(format.grid == Grid::seq ? format.bits == 2 : format.bits >= 2 && format.bits <= 8,
              "{}: quantization_config: grid {} with {} bits does not exist", where, grid, format.bits);
  const bool says_symmetric = own.contains("symmetric") || common.contains("symmetric");
  format.symmetric = says_symmetric ? value_of<bool>(own, common, "symmetric", where) : true;
  format.group_size = value_of<int64_t>(own, common, "group_size", where);
  CRUMB_CHECK(format.group_size >= 0, "{}: quantization_config: group_size is {}", where, format.group_size);
  return format;
}

}  // namespace crumb::quant
