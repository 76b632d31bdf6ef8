// The entry "quantization_config" of a codes-and-scales folder's config.json (docs/formats.md).
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "quant/activations.h"
#include "quant/quantized_tensor.h"

namespace crumb::quant {

/// `formats` by module name; the most frequent one is written out, the others become `modules`. `ignore`: the exclude
/// patterns. With `activations` the version is one that programs refuse that do not know them.
nlohmann::json make_quantization_config(const std::map<std::string, QuantFormat>& formats,
                                        const std::vector<std::string>& ignore,
                                        const std::optional<ActivationFormat>& activations = std::nullopt);

/// Whether config.json declares a codes-and-scales checkpoint. UserError for the quantization of another program.
bool is_codes_config(const nlohmann::json& config, const std::string& where);
/// What the inputs of the quantized modules of a codes-and-scales checkpoint are rounded to.
std::optional<ActivationFormat> activations_in(const nlohmann::json& config, const std::string& where);
/// Format of one module of a codes-and-scales checkpoint. UserError for values that do not exist.
QuantFormat format_of_module(const nlohmann::json& config, const std::string& module, const std::string& where);

}  // namespace crumb::quant
