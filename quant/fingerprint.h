// Tells that a model or a text under a known path is another one than before.
#pragma once

#include <string>
#include <vector>

#include "core/common/file.h"

namespace crumb::quant {

/// The files that hold the weights of a model: safetensors of a folder, a GGUF in all parts, or the config.json named.
std::vector<Path> weight_files(const Path& path);

/// Of the weights of a model: its safetensors files, its GGUF in all parts, or the config.json that was named. 16 hex
/// digits of a sample of their bytes.
std::string weights_fingerprint(const Path& path);
/// The same of its weight_files().
std::string weights_fingerprint(const std::vector<Path>& files);

/// When weight_files() were last written: the fingerprint, of a sample, would miss an edit in place.
std::string weights_times(const std::vector<Path>& files);

/// When anything was last done to them, which no program sets: a copy or a renamed file differs, too.
std::string weights_change_times(const std::vector<Path>& files);

/// Of config.json in the folder, which decides how the weights are read; "" without one.
std::string config_fingerprint(const Path& path);

}  // namespace crumb::quant
