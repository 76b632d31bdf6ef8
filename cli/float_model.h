// A float model as an ordinary HF folder.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "core/common/file.h"
#include "model/decoder.h"

namespace crumb::cli {

/// Writes the folder atomically, replacing one that exists: weights in the dtype that config.json names ("dtype" or
/// "torch_dtype": float32, else bfloat16), `config` as it is, copies of `companions`.
void save_float_model(const Path& folder, model::Decoder& decoder, const nlohmann::json& config,
                      const std::vector<Path>& companions);

/// The JSON of DIR/config.json, or of the file itself.
nlohmann::json read_hf_config(const Path& path);
/// Tokenizer files, generation_config.json, chat template and licence of a folder.
std::vector<Path> tokenizer_files(const Path& folder);

}  // namespace crumb::cli
