#include "quant/quantization_config.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/common/error.h"
#include "core/common/json.h"

namespace crumb::quant {
namespace {

using nlohmann::json;

/// Of weights alone, and of weights whose linears also round what they read: programs of the first would leave that
/// out.
constexpr int kVersion = 1, kActivationsVersion = 2;

json format_json(const QuantFormat& format) {
  json out = {{"grid", std::string(format.grid.facts().name)},
              {"bits", format.bits},
              {"symmetric", format.symmetric},
              {"group_size", format.group_size}};
  if (format.has_minima) out["zero_point"] = zero_point_name(format);  // the others follow from symmetric
  if (format.has_mask) out["mask"] = true;
  return out;
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

/// How the weights are quantized; nothing where they are not.
std::optional<JsonObject> quantization_of(const JsonObject& config) {
  for (const char* key : {"compression_config", "quantization_config"})
    if (config.has(key)) return config.inner(key);
  return std::nullopt;
}

template <class T>
T value_of(const JsonObject& own, const JsonObject& common, const char* key, std::optional<T> fallback = std::nullopt) {
  return (own.has(key) ? own : common).get<T>(key, fallback);
}

}  // namespace

json make_quantization_config(const std::map<std::string, QuantFormat>& formats, const std::vector<std::string>& ignore,
                              const std::optional<ActivationFormat>& activations) {
  const auto common = most_frequent(formats);
  json result = format_json(common);
  result["quant_method"] = "crumb";
  result["version"] = activations ? kActivationsVersion : kVersion;
  result["activations"] = activations_json(activations);
  result["ignore"] = ignore;
  result["modules"] = json::object();
  for (const auto& [module, format] : formats) {
    if (format == common) continue;
    auto& own = result["modules"][module] = format_json(format);
    // what is left out is as in all the others
    if (common.has_minima) own["zero_point"] = zero_point_name(format);
    if (common.has_mask) own["mask"] = format.has_mask;
  }
  return result;
}

bool is_codes_config(const json& config, const std::string& where) {
  const JsonObject keys(config, where);
  CRUMB_CHECK(!keys.has("quantization"),
              "{}: the weights are quantized by MLX, which Crumb does not read; give the unquantized model", where);
  const auto quantization = quantization_of(keys);
  if (!quantization) return false;
  const auto method = quantization->text("quant_method", "another program");
  CRUMB_CHECK(method == "crumb",
              "{}: the weights are quantized by {}, which Crumb does not read; give the unquantized model", where,
              method);
  const int version = quantization->get<int>("version");
  CRUMB_CHECK(version == kVersion || version == kActivationsVersion,
              "{}: quantization_config has version {}; this program reads {} and {}", where, version, kVersion,
              kActivationsVersion);
  return true;
}

std::optional<ActivationFormat> activations_in(const json& config, const std::string& where) {
  const auto found = quantization_of(JsonObject(config, where));
  CRUMB_ASSERT(found);
  const auto& entries = found->object();
  const std::string here = where + ": quantization_config";
  const auto activations =
      entries.contains("activations") ? activations_from_json(entries.at("activations"), here) : std::nullopt;
  const int version = found->get<int>("version");
  CRUMB_CHECK(activations.has_value() == (version >= kActivationsVersion),
              "{}: version {} {} rounded activations, and the entry activations says otherwise", here, version,
              version >= kActivationsVersion ? "has" : "has no");
  return activations;
}

QuantFormat format_of_module(const json& config, const std::string& module, const std::string& where) {
  const auto found = quantization_of(JsonObject(config, where));
  CRUMB_ASSERT(found);
  const JsonObject& common = *found;
  const JsonObject modules = common.inner("modules"), own = modules.inner(module.c_str());
  const std::string here = where + ": quantization_config";
  const bool symmetric = value_of<bool>(own, common, "symmetric", true);
  const auto zero_point = value_of<std::string>(own, common, "zero_point", symmetric ? "none" : "integer");
  const QuantFormat format{.grid = grid_from_name(value_of<std::string>(own, common, "grid"), here),
                           .bits = value_of<int>(own, common, "bits"),
                           .symmetric = symmetric,
                           .group_size = value_of<int64_t>(own, common, "group_size"),
                           .has_mask = value_of<bool>(own, common, "mask", false),
                           .has_minima = zero_point == "float"};
  CRUMB_CHECK(zero_point == zero_point_name(format), "{}: zero_point: {} with symmetric: {} does not exist", here,
              zero_point, symmetric);
  const std::string obstacle = format_obstacle(format);
  CRUMB_CHECK(obstacle.empty(), "{}: {}", here, obstacle);
  return format;
}

}  // namespace crumb::quant
