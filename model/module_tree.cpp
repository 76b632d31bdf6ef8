#include "model/module_tree.h"

namespace crumb::model {
namespace {

torch::nn::Module& module_at(torch::nn::Module& root, const std::string& path) {
  if (path.empty()) return root;
  const size_t dot = path.find('.');
  const std::string first = path.substr(0, dot);
  const auto children = root.named_children();
  const auto* found = children.find(first);
  torch::nn::Module& child =
      found != nullptr ? **found : *root.register_module(first, std::make_shared<torch::nn::Module>());
  return dot == std::string::npos ? child : module_at(child, path.substr(dot + 1));
}

}  // namespace

void add_module(torch::nn::Module& root, const std::string& path, std::shared_ptr<torch::nn::Module> child) {
  const size_t dot = path.rfind('.');
  torch::nn::Module& parent = dot == std::string::npos ? root : module_at(root, path.substr(0, dot));
  parent.register_module(dot == std::string::npos ? path : path.substr(dot + 1), std::move(child));
}

torch::Tensor add_parameter(torch::nn::Module& root, const std::string& path, const std::string& name,
                            torch::Tensor value) {
  return module_at(root, path).register_parameter(name, std::move(value));
}

}  // namespace crumb::model
