// The trainable decoder, built from a DecoderSpec. What a linear is, a LinearFactory decides: float here,
// fake-quantized in qat/.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/arch/tensor_table.h"
#include "quant/checkpoint.h"

namespace crumb::model {

/// A linear layer of the decoder: y = x W^T + b. Parameters are registered under "weight" and "bias".
class LinearModule : public torch::nn::Module {
 public:
  /// x [..., cols] -> [..., rows], dtype of x.
  virtual torch::Tensor forward(const torch::Tensor& x) = 0;
  /// The weight the forward pass multiplies with, [rows, cols] float32, without gradient: quantized where the layer
  /// quantizes.
  virtual torch::Tensor effective_weight() = 0;
  /// The bias forward() adds, in `dtype`: rounded straight-through when the decoder rounds small tensors; undefined
  /// without a bias.
  torch::Tensor effective_bias(torch::ScalarType dtype) const;

  torch::Tensor weight;     // [rows, cols] float32 master
  torch::Tensor bias;       // [rows] or undefined
  bool round_bias = false;  // set by Decoder::forward from round_small_tensors
};

/// `name` is the module name ("model.layers.0.self_attn.q_proj"); weight [rows, cols] float32 and bias (or undefined)
/// are its first values.
using LinearFactory =
    std::function<std::shared_ptr<LinearModule>(const std::string& name, torch::Tensor weight, torch::Tensor bias)>;

/// Plain float linear.
std::shared_ptr<LinearModule> make_float_linear(const std::string& name, torch::Tensor weight, torch::Tensor bias);

/// `x` rounded to bf16, in x's dtype; the gradient passes unchanged.
torch::Tensor round_to_bf16(const torch::Tensor& x);

/// Hidden states a training objective may look at. Layer l's state is the residual stream after block l (0-based).
struct DecoderOutput {
  torch::Tensor final_hidden;                   // [batch, tokens, hidden] float32, after the final norm
  std::map<int, torch::Tensor> hidden;          // the layers asked for, [batch, tokens, hidden] float32
  torch::ScalarType compute = torch::kFloat32;  // of the decoder, for the head's matrix products
};

/// Where the first values come from: a float32 tensor of the described shape.
using TensorSource = std::function<torch::Tensor(const arch::TensorDesc&)>;
/// Reads a checkpoint (codes are dequantized), which must outlive the source.
TensorSource checkpoint_source(const quant::Checkpoint& checkpoint);
/// Random initialisation: linears and embedding normal(0, 0.02), the projections back to the residual stream divided by
/// sqrt(2 * layers), norms 1, biases 0; a function of seed and tensor name only.
TensorSource random_source(const arch::DecoderSpec& spec, uint64_t seed);

using NamedLinear = std::pair<std::string, std::shared_ptr<LinearModule>>;  // by module name

class Block;

class Decoder : public torch::nn::Module {
 public:
  Decoder(arch::DecoderSpec spec, const TensorSource& source, const LinearFactory& make_linear = make_float_linear);

  /// ids [batch, tokens] int64. `compute`: dtype of the matrix products (float32 or bfloat16); norms, softmax and the
  /// residual stream stay as transformers does them. Norm weights and biases are rounded to bf16 straight-through when
  /// `round_small_tensors` is set.
  /// `documents` [batch, tokens] int64, or undefined: numbers that do not fall along a row; a token then attends to
  /// tokens of its own number only, and positions begin anew with each, as if every document stood alone.
  DecoderOutput forward(const torch::Tensor& ids, const std::vector<int>& wanted_layers = {},
                        const torch::Tensor& documents = {});
  /// [vocab, hidden]: lm_head's weight, or the embedding when tied.
  torch::Tensor head_weight();

  const arch::DecoderSpec& spec() const { return spec_; }
  /// Quantizable linears by module name, in tensor_table order.
  const std::vector<NamedLinear>& linears() const { return linears_; }
  /// The module behind a linear's weight.
  const std::shared_ptr<LinearModule>& linear(const arch::TensorId& id) const { return linears_by_id_.at(id); }
  const std::vector<std::shared_ptr<Block>>& blocks() const { return blocks_; }
  /// Current value of any tensor of tensor_table(), float32, as a forward pass uses it (norms and biases rounded to
  /// bf16 if so set; linears: effective_weight()).
  torch::Tensor value(const arch::TensorDesc& desc);
  /// The trained parameter behind a tensor of tensor_table().
  torch::Tensor parameter(const arch::TensorDesc& desc);

  torch::ScalarType compute = torch::kFloat32;
  bool round_small_tensors = false;

 private:
  torch::Tensor small(const torch::Tensor& parameter) const;
  struct Contexts;
  std::shared_ptr<const Contexts> contexts_for(int64_t tokens, torch::Device device, const torch::Tensor& documents);

  arch::DecoderSpec spec_;
  std::vector<NamedLinear> linears_;
  std::map<arch::TensorId, std::shared_ptr<LinearModule>> linears_by_id_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::map<arch::TensorId, torch::Tensor> parameters_by_id_;
  torch::Tensor embedding_, final_norm_, head_;  // head_ is the embedding when tied
  std::shared_ptr<const Contexts> contexts_;     // of the last pass: the next is mostly as long
};

}  // namespace crumb::model
