// The kinds of checkpoint behind open_checkpoint(), and what they share.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "quant/checkpoint.h"

namespace crumb::quant {

/// An HF folder with plain or with crumb's quantized weights.
std::unique_ptr<Checkpoint> open_folder_checkpoint(const Path& path);
std::unique_ptr<Checkpoint> open_gguf_checkpoint(const Path& path);

/// UserError naming the tensor if one of the values is NaN or infinite.
void check_finite(const float* values, int64_t count, const Path& path, const std::string& name);

/// UserError if `actual` is not the shape the configuration asks for; `keys` names what it comes from there.
void check_shape(const Path& path, const std::string& name, const std::vector<int64_t>& actual,
                 const std::vector<int64_t>& expected, const std::string& keys = "");

}  // namespace crumb::quant
