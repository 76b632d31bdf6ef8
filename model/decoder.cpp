#include "model/decoder.h"

#include <set>

#include "core/common/error.h"
#include "kernels/torch/rms_norm.h"
#include "model/block.h"
#include "model/module_tree.h"

namespace crumb::model {
namespace {

struct RoundToBf16 : torch::autograd::Function<RoundToBf16> {
  static torch::Tensor forward(torch::autograd::AutogradContext*, const torch::Tensor& x) {
    return x.to(torch::kBFloat16).to(x.scalar_type());
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list grads) {
    return grads;
  }
};

class FloatLinear : public LinearModule {
 public:
  FloatLinear(torch::Tensor initial_weight, torch::Tensor initial_bias) {
    weight = register_parameter("weight", std::move(initial_weight));
    if (initial_bias.defined()) bias = register_parameter("bias", std::move(initial_bias));
  }
  torch::Tensor forward(const torch::Tensor& x) override {
    return torch::linear(x, weight.to(x.scalar_type()), effective_bias(x.scalar_type()));
  }
  torch::Tensor effective_weight() override { return weight.detach(); }
};

/// Layers that share rotary table and window share a context; a pass builds each once.
std::vector<BlockContext> make_contexts(const std::vector<arch::LayerSpec>& layers, int64_t tokens,
                                        const BlockContext& common, torch::Device device) {
  std::vector<BlockContext> contexts(layers.size(), common);
  for (size_t i = 0; i < layers.size(); ++i) {
    const arch::RopeSpec& rope = layers[i].rope;
    size_t same_rope = 0, same_window = 0;  // first layers with the same settings
    while (layers[same_rope].rope.dim != rope.dim || layers[same_rope].rope.base != rope.base ||
           layers[same_rope].rope.divisors != rope.divisors)
      ++same_rope;
    while (layers[same_window].window != layers[i].window) ++same_window;
    contexts[i].rotary = same_rope < i ? contexts[same_rope].rotary : make_rotary_table(rope, tokens, device);
    contexts[i].mask =
        same_window < i ? contexts[same_window].mask : make_window_mask(layers[i].window, tokens, device);
  }
  return contexts;
}

}  // namespace

torch::Tensor round_to_bf16(const torch::Tensor& x) { return RoundToBf16::apply(x); }

torch::Tensor LinearModule::effective_bias(torch::ScalarType dtype) const {
  if (!bias.defined()) return bias;
  return (round_bias ? round_to_bf16(bias) : bias).to(dtype);
}

std::shared_ptr<LinearModule> make_float_linear(const std::string& /*name*/, torch::Tensor weight, torch::Tensor bias) {
  return std::make_shared<FloatLinear>(std::move(weight), std::move(bias));
}

Decoder::Decoder(arch::DecoderSpec spec, const TensorSource& source, const LinearFactory& make_linear)
    : spec_(std::move(spec)) {
  const std::vector<arch::TensorDesc> tensors = arch::tensor_table(spec_);
  const auto add_weight = [&](const arch::TensorDesc& desc) {
    const torch::Tensor weight = add_parameter(*this, desc.module_name(), "weight", source(desc));
    parameters_by_name_[desc.hf_name] = weight;
    return weight;
  };
  for (const auto& desc : tensors) {
    if (desc.role == arch::TensorRole::embedding) embedding_ = add_weight(desc);
  }
  for (size_t i = 0; i < spec_.layers.size(); ++i) {
    const std::string path = "model.layers." + std::to_string(i);
    auto block = std::make_shared<Block>(spec_.layers[i], spec_.rms_norm_eps, path + ".", tensors, source, make_linear);
    add_module(*this, path, block);
    linears_.insert(linears_.end(), block->linears().begin(), block->linears().end());
    parameters_by_name_.insert(block->parameters_by_name().begin(), block->parameters_by_name().end());
    blocks_.push_back(std::move(block));
  }
  for (const auto& desc : tensors) {
    if (desc.layer < 0 && desc.role == arch::TensorRole::norm) final_norm_ = add_weight(desc);
    if (desc.role == arch::TensorRole::head) head_ = add_weight(desc);
  }
  if (spec_.tied_head) head_ = embedding_;
  for (const auto& desc : tensors) CRUMB_ASSERT(parameters_by_name_.contains(desc.hf_name));
}

torch::Tensor Decoder::small(const torch::Tensor& parameter) const {
  return round_small_tensors ? round_to_bf16(parameter) : parameter;
}

DecoderOutput Decoder::forward(const torch::Tensor& ids, const std::vector<int>& wanted_layers) {
  CRUMB_ASSERT(ids.dim() == 2 && ids.scalar_type() == torch::kInt64);
  const std::set<int> wanted(wanted_layers.begin(), wanted_layers.end());
  const BlockContext common{.rotary = {}, .mask = {}, .compute = compute, .round_small_tensors = round_small_tensors};
  const auto contexts = make_contexts(spec_.layers, ids.size(1), common, ids.device());
  DecoderOutput out;
  out.compute = compute;
  torch::Tensor x = torch::embedding(embedding_, ids);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    x = blocks_[i]->forward(x, contexts[i]);
    if (wanted.contains(static_cast<int>(i))) out.hidden[static_cast<int>(i)] = x;
  }
  out.final_hidden = kernels::rms_norm(x, small(final_norm_), spec_.rms_norm_eps, x.scalar_type());
  return out;
}

torch::Tensor Decoder::head_weight() { return head_; }

torch::Tensor Decoder::parameter(const arch::TensorDesc& desc) {
  const auto found = parameters_by_name_.find(desc.hf_name);
  CRUMB_ASSERT(found != parameters_by_name_.end());
  return found->second;
}

torch::Tensor Decoder::value(const arch::TensorDesc& desc) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor stored = parameter(desc).detach();
  const bool is_small = desc.role == arch::TensorRole::norm || desc.role == arch::TensorRole::bias;
  if (is_small) return small(stored);
  if (desc.role != arch::TensorRole::linear) return stored;
  for (const auto& [name, linear] : linears_) {
    if (name == desc.module_name()) return linear->effective_weight();
  }
  return stored;
}

}  // namespace crumb::model
