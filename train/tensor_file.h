// Float32 tensors by name, as a safetensors file.
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>

#include "core/common/file.h"

namespace crumb::train {

void write_tensors(const Path& path, const std::map<std::string, torch::Tensor>& tensors);
std::map<std::string, torch::Tensor> read_tensors(const Path& path);

}  // namespace crumb::train
