// Modules and parameters under dotted names ("model.layers.0.self_attn"), so that named_parameters() gives a
// checkpoint's names.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <string>

namespace crumb::model {

/// Registers `child` under root's `path`; the modules on the way are made when absent.
void add_module(torch::nn::Module& root, const std::string& path, std::shared_ptr<torch::nn::Module> child);
/// Registers `value` as parameter `name` of the module at `path` and returns the parameter.
torch::Tensor add_parameter(torch::nn::Module& root, const std::string& path, const std::string& name,
                            torch::Tensor value);

}  // namespace crumb::model
