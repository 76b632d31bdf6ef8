// A float model as an ordinary HF folder.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>

#include "core/common/file.h"
#include "core/formats/dtype.h"
#include "model/decoder.h"

namespace crumb::model {

/// Writes the folder atomically, replacing one that exists: weights in the dtype that config.json names ("dtype" or
/// "torch_dtype": float32, else bfloat16), `config` as it is, and what `write_companions` adds.
void save_float_model(const Path& folder, Decoder& decoder, const nlohmann::json& config,
                      const std::function<void(const Path&)>& write_companions);

/// The dtype that a config.json names.
formats::DType stored_dtype(const nlohmann::json& config);

/// The JSON of DIR/config.json, or of the file itself.
nlohmann::json read_hf_config(const Path& path);

}  // namespace crumb::model
