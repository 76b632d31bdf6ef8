#include "model/block.h"

#include <algorithm>

#include "core/common/error.h"
#include "kernels/torch/rms_norm.h"
#include "kernels/torch/rope.h"
#include "kernels/torch/swiglu.h"
#include "model/module_tree.h"

namespace crumb::model {

RotaryTable make_rotary_table(const arch::RopeSpec& rope, int64_t tokens, torch::Device device) {
  const int64_t half = rope.dim / 2;
  const auto f64 = torch::TensorOptions().dtype(torch::kFloat64);
  const torch::Tensor divisors = torch::tensor(rope.divisors, f64);
  const torch::Tensor rates =
      torch::pow(rope.base, torch::arange(half, f64) * (-2.0 / static_cast<double>(rope.dim))) / divisors;
  // The angle is a product of floats, as models are trained with; at long contexts the difference would show.
  const torch::Tensor angles = torch::outer(torch::arange(tokens, torch::kFloat32), rates.to(torch::kFloat32))
                                   .to(torch::kFloat64);  // [tokens, half]
  const auto to_float = [&](const torch::Tensor& x) { return x.to(torch::kFloat32).to(device); };
  return {to_float(angles.cos()), to_float(angles.sin())};
}

torch::Tensor make_window_mask(int64_t window, int64_t tokens, torch::Device device) {
  if (window == 0 || window >= tokens) return {};
  const torch::Tensor i = torch::arange(tokens, device);
  const torch::Tensor age = i.unsqueeze(1) - i;  // query minus key
  return torch::zeros({tokens, tokens}, device)
      .masked_fill_((age < 0).logical_or(age >= window), -std::numeric_limits<float>::infinity());
}

torch::Tensor document_positions(const torch::Tensor& documents) {
  const torch::Tensor at = torch::arange(documents.size(1), documents.options()).expand_as(documents);
  torch::Tensor first = at.clone();  // where a document begins its own place, elsewhere 0
  first.slice(1, 1).masked_fill_(documents.slice(1, 1) == documents.slice(1, 0, documents.size(1) - 1), 0);
  return at - std::get<0>(first.cummax(1));
}

RotaryTable at_positions(const RotaryTable& table, const torch::Tensor& positions) {
  const torch::Tensor rows = positions.flatten();
  return {table.cos.index_select(0, rows), table.sin.index_select(0, rows)};
}

torch::Tensor make_document_mask(const torch::Tensor& documents, int64_t window) {
  const int64_t tokens = documents.size(1);
  const torch::Tensor i = torch::arange(tokens, documents.device());
  const torch::Tensor age = i.unsqueeze(1) - i;  // query minus key
  torch::Tensor is_hidden = (age < 0).logical_or(documents.unsqueeze(2) != documents.unsqueeze(1));
  if (window > 0) is_hidden = is_hidden.logical_or(age >= window);
  return torch::zeros(is_hidden.sizes(), torch::TensorOptions().device(documents.device()))
      .masked_fill_(is_hidden, -std::numeric_limits<float>::infinity())
      .unsqueeze(1);
}

Block::Block(const arch::LayerSpec& spec, double rms_norm_eps, int layer, const std::vector<arch::TensorDesc>& tensors,
             const TensorSource& source, const LinearFactory& make_linear)
    : spec_(spec), eps_(rms_norm_eps) {
  using arch::Slot;
  const auto find = [&](Slot slot) {
    const auto found = std::ranges::find(tensors, arch::TensorId{slot, layer}, &arch::TensorDesc::id);
    return found == tensors.end() ? nullptr : &*found;
  };
  const auto path_in_block = [&](const arch::TensorDesc& desc) {
    return desc.module_name().substr(arch::layer_module(layer).size() + 1);
  };
  const auto add_norm = [&](torch::Tensor& weight, Slot slot) {
    const auto* desc = find(slot);
    if (desc == nullptr) return;
    weight = add_parameter(*this, path_in_block(*desc), "weight", source(*desc));
    parameters_by_id_[desc->id] = weight;
  };
  const auto add_linear = [&](std::shared_ptr<LinearModule>& linear, Slot slot) {
    const auto* desc = find(slot);
    const auto* bias = find(*arch::bias_slot(slot));
    CRUMB_ASSERT(desc != nullptr);
    const std::string name = desc->module_name();
    linear = make_linear(name, source(*desc), bias == nullptr ? torch::Tensor() : source(*bias));
    add_module(*this, path_in_block(*desc), linear);
    linears_.emplace_back(name, linear);
    linears_by_id_[desc->id] = linear;
    parameters_by_id_[desc->id] = linear->weight;
    if (bias != nullptr) parameters_by_id_[bias->id] = linear->bias;
  };
  add_norm(input_norm_, Slot::attention_norm);
  add_norm(post_norm_, Slot::ffn_norm);
  add_norm(q_norm_, Slot::q_norm);
  add_norm(k_norm_, Slot::k_norm);
  add_linear(q_, Slot::q);
  add_linear(k_, Slot::k);
  add_linear(v_, Slot::v);
  add_linear(o_, Slot::o);
  add_linear(gate_, Slot::gate);
  add_linear(up_, Slot::up);
  add_linear(down_, Slot::down);
}

const std::vector<std::vector<arch::Slot>>& Block::groups() const {
  using arch::Slot;
  static const std::vector<std::vector<Slot>> of_gqa_and_mlp = {
      {Slot::q, Slot::k, Slot::v}, {Slot::o}, {Slot::gate, Slot::up}, {Slot::down}};
  return of_gqa_and_mlp;
}

torch::Tensor Block::norm(const torch::Tensor& x, const torch::Tensor& weight, const BlockContext& context) const {
  return kernels::rms_norm(x, context.round_small_tensors ? round_to_bf16(weight) : weight, eps_, context.compute);
}

BlockState Block::begin(const torch::Tensor& x, const BlockContext& context) const {
  for (const auto& [name, linear] : linears_) linear->round_bias = context.round_small_tensors;
  return {x, norm(x, input_norm_, context)};
}

void Block::advance(BlockState& state, size_t group, const BlockContext& context) const {
  switch (group) {
    case 0:
      state.input = attention(state.input, context);
      return;
    case 1:
      state.residual = state.residual + o_->forward(state.input);
      state.input = norm(state.residual, post_norm_, context);
      return;
    case 2:
      state.input = kernels::swiglu(gate_->forward(state.input), up_->forward(state.input));
      return;
    case 3:
      state.residual = state.residual + down_->forward(state.input);
      state.input = torch::Tensor();
      return;
  }
  CRUMB_ASSERT(false);
}

torch::Tensor Block::forward(const torch::Tensor& x, const BlockContext& context) {
  BlockState state = begin(x, context);
  for (size_t group = 0; group < groups().size(); ++group) advance(state, group, context);
  return state.residual;
}

torch::Tensor Block::rotated(const torch::Tensor& heads, const torch::Tensor& norm_weight,
                             const BlockContext& context) const {
  const auto rope = [&](const torch::Tensor& x) {
    const auto& [cos, sin] = context.rotary;
    if (cos.size(0) == x.size(1)) return kernels::rope(x, cos, sin);
    // a row a token: as one sequence of all of them
    return kernels::rope(x.reshape({1, x.size(0) * x.size(1), x.size(2), x.size(3)}), cos, sin).view(x.sizes());
  };
  switch (spec_.gqa().qk_norm) {
    case arch::QkNorm::before_rope:
      return rope(norm(heads, norm_weight, context));
    case arch::QkNorm::after_rope:
      return norm(rope(heads), norm_weight, context);
    case arch::QkNorm::none:
      break;
  }
  return rope(heads);
}

torch::Tensor Block::attention(const torch::Tensor& x, const BlockContext& context) const {
  const arch::GqaSpec& gqa = spec_.gqa();
  const int64_t batch = x.size(0), tokens = x.size(1), share = gqa.heads / gqa.kv_heads;
  const auto split = [&](const torch::Tensor& y, int64_t heads) {
    return y.view({batch, tokens, heads, gqa.head_dim});
  };
  // Every group of query heads gets its own copy of the shared head: the fused kernel takes equal numbers of heads
  // only.
  const auto shared =
      [&](const torch::Tensor& y) {  // [batch, tokens, kv_heads, head_dim] -> [batch, heads, tokens, head_dim]
        const torch::Tensor copies =
            share == 1
                ? y
                : y.unsqueeze(3).expand({-1, -1, -1, share, -1}).reshape({batch, tokens, gqa.heads, gqa.head_dim});
        return copies.transpose(1, 2);
      };
  const torch::Tensor q = rotated(split(q_->forward(x), gqa.heads), q_norm_, context).transpose(1, 2);
  const torch::Tensor k = shared(rotated(split(k_->forward(x), gqa.kv_heads), k_norm_, context));
  const torch::Tensor v = shared(split(v_->forward(x), gqa.kv_heads));
  c10::optional<torch::Tensor> mask;
  if (context.mask.defined()) mask = context.mask.to(q.scalar_type());
  const torch::Tensor mixed = at::scaled_dot_product_attention(q, k, v, mask, 0.0, !mask.has_value());
  return mixed.transpose(1, 2).reshape({batch, tokens, gqa.heads * gqa.head_dim});
}

}  // namespace crumb::model
