#include "model/decoder.h"

#include <algorithm>
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

/// Layers that share rotary table and window share a context; each is built once. `documents`: of Decoder::forward.
std::vector<BlockContext> make_contexts(const std::vector<arch::LayerSpec>& layers, int64_t tokens,
                                        const BlockContext& common, torch::Device device,
                                        const torch::Tensor& documents = {}) {
  const auto rotary_table = [&](const arch::RopeSpec& rope) {
    const RotaryTable table = make_rotary_table(rope, tokens, device);
    return documents.defined() ? at_positions(table, document_positions(documents)) : table;
  };
  const auto mask = [&](int64_t window) {
    return documents.defined() ? make_document_mask(documents, window) : make_window_mask(window, tokens, device);
  };
  std::vector<BlockContext> contexts(layers.size(), common);
  for (size_t i = 0; i < layers.size(); ++i) {
    const arch::RopeSpec& rope = layers[i].rope;
    size_t same_rope = 0, same_window = 0;  // first layers with the same settings
    while (layers[same_rope].rope != rope) ++same_rope;
    while (layers[same_window].window != layers[i].window) ++same_window;
    contexts[i].rotary = same_rope < i ? contexts[same_rope].rotary : rotary_table(rope);
    contexts[i].mask = same_window < i ? contexts[same_window].mask : mask(layers[i].window);
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
  using arch::Slot;
  const auto add_weight = [&](Slot slot) {
    const auto desc = std::ranges::find(tensors, arch::TensorId{slot}, &arch::TensorDesc::id);
    CRUMB_ASSERT(desc != tensors.end());
    const torch::Tensor weight = add_parameter(*this, desc->module_name(), "weight", source(*desc));
    parameters_by_id_[desc->id] = weight;
    return weight;
  };
  embedding_ = add_weight(Slot::embedding);
  for (int i = 0; i < static_cast<int>(spec_.num_layers()); ++i) {
    const auto& layer = spec_.layers[static_cast<size_t>(i)];
    auto block = std::make_shared<Block>(layer, spec_.rms_norm_eps, i, tensors, source, make_linear);
    add_module(*this, arch::layer_module(i), block);
    linears_.insert(linears_.end(), block->linears().begin(), block->linears().end());
    linears_by_id_.insert(block->linears_by_id().begin(), block->linears_by_id().end());
    parameters_by_id_.insert(block->parameters_by_id().begin(), block->parameters_by_id().end());
    blocks_.push_back(std::move(block));
  }
  final_norm_ = add_weight(Slot::final_norm);
  head_ = spec_.tied_head ? embedding_ : add_weight(Slot::head);
  for (const auto& desc : tensors) CRUMB_ASSERT(parameters_by_id_.contains(desc.id));
}

torch::Tensor Decoder::small(const torch::Tensor& parameter) const {
  return round_small_tensors ? round_to_bf16(parameter) : parameter;
}

struct Decoder::Contexts {
  int64_t tokens;
  torch::Device device;
  torch::ScalarType compute;
  bool round_small_tensors;
  std::vector<BlockContext> of_layers;
};

std::shared_ptr<const Decoder::Contexts> Decoder::contexts_for(int64_t tokens, torch::Device device,
                                                               const torch::Tensor& documents) {
  const c10::InferenceMode off(false);  // a later pass may want gradients
  const BlockContext common{.rotary = {}, .mask = {}, .compute = compute, .round_small_tensors = round_small_tensors};
  if (documents.defined()) {
    return std::make_shared<const Contexts>(Contexts{tokens, device, compute, round_small_tensors,
                                                     make_contexts(spec_.layers, tokens, common, device, documents)});
  }
  const auto fits = [&](const Contexts& last) {
    return last.tokens == tokens && last.device == device && last.compute == compute &&
           last.round_small_tensors == round_small_tensors;
  };
  if (contexts_ == nullptr || !fits(*contexts_)) {
    contexts_ = std::make_shared<const Contexts>(
        Contexts{tokens, device, compute, round_small_tensors, make_contexts(spec_.layers, tokens, common, device)});
  }
  return contexts_;
}

DecoderOutput Decoder::forward(const torch::Tensor& ids, const std::vector<int>& wanted_layers,
                               const torch::Tensor& documents) {
  CRUMB_ASSERT(ids.dim() == 2 && ids.scalar_type() == torch::kInt64);
  CRUMB_ASSERT(!documents.defined() || documents.sizes() == ids.sizes());
  const std::set<int> wanted(wanted_layers.begin(), wanted_layers.end());
  const auto contexts = contexts_for(ids.size(1), ids.device(), documents);
  DecoderOutput out;
  out.compute = compute;
  torch::Tensor x = torch::embedding(embedding_, ids);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    x = blocks_[i]->forward(x, contexts->of_layers[i]);
    if (wanted.contains(static_cast<int>(i))) out.hidden[static_cast<int>(i)] = x;
  }
  out.final_hidden = kernels::rms_norm(x, small(final_norm_), spec_.rms_norm_eps, x.scalar_type());
  return out;
}

torch::Tensor Decoder::head_weight() { return head_; }

torch::Tensor Decoder::parameter(const arch::TensorDesc& desc) {
  const auto found = parameters_by_id_.find(desc.id);
  CRUMB_ASSERT(found != parameters_by_id_.end());
  return found->second;
}

torch::Tensor Decoder::value(const arch::TensorDesc& desc) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor stored = parameter(desc).detach();
  const bool is_small = arch::is_small(desc.role);
  if (is_small) return small(stored);
  if (desc.role != arch::TensorRole::linear) return stored;
  return linear(desc.id)->effective_weight();
}

}  // namespace crumb::model
