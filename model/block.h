// One block of the decoder. It can be built, loaded and run alone: rotary table and mask are passed in.
#pragma once

#include "model/decoder.h"

namespace crumb::model {

/// cos and sin [tokens, dim / 2] float32 of the rotary angles, computed in double.
struct RotaryTable {
  torch::Tensor cos, sin;
};
RotaryTable make_rotary_table(const arch::RopeSpec& rope, int64_t tokens, torch::Device device = torch::kCPU);

/// Mask of a sliding window: [tokens, tokens] float32, 0 where query i sees key j (i - window < j <= i), else
/// -infinity. Undefined when the window hides nothing: attention is then plainly causal.
torch::Tensor make_window_mask(int64_t window, int64_t tokens, torch::Device device = torch::kCPU);

/// Of documents [batch, tokens], as Decoder::forward takes them: positions [batch, tokens] int64, counted from 0 in
/// each document.
torch::Tensor document_positions(const torch::Tensor& documents);
/// Rows of a table, [batch * tokens, dim / 2], for positions [batch, tokens].
RotaryTable at_positions(const RotaryTable& table, const torch::Tensor& positions);
/// [batch, 1, tokens, tokens] float32, 0 where a query sees a key of its own document, not behind it and, unless
/// `window` is 0, inside the window; else -infinity.
torch::Tensor make_document_mask(const torch::Tensor& documents, int64_t window);

/// What a block needs beside its input; the same for all blocks of one forward pass with equal LayerSpecs.
struct BlockContext {
  RotaryTable rotary;  // a row a position, or a row a token (at_positions)
  torch::Tensor mask;  // of make_window_mask or make_document_mask
  torch::ScalarType compute = torch::kFloat32;
  bool round_small_tensors = false;
};

/// A block in the midst of its work: before one of its groups of linears, or at its end.
struct BlockState {
  torch::Tensor residual;  // [batch, tokens, hidden] float32; at the end: the output
  torch::Tensor input;     // what the linears of the next group all read, [batch, tokens, cols]; undefined at the end
};

class Block : public torch::nn::Module {
 public:
  /// Reads the tensors of `tensors` that are of layer `layer`.
  Block(const arch::LayerSpec& spec, double rms_norm_eps, int layer, const std::vector<arch::TensorDesc>& tensors,
        const TensorSource& source, const LinearFactory& make_linear);

  /// x [batch, tokens, hidden] float32, the residual stream -> the same after this block.
  torch::Tensor forward(const torch::Tensor& x, const BlockContext& context);

  /// forward() in steps: begin(), then advance() for each of groups() in order. What calibrates looks at the inputs
  /// between them, and may change the weights of a group before it advances.
  BlockState begin(const torch::Tensor& x, const BlockContext& context) const;
  void advance(BlockState& state, size_t group, const BlockContext& context) const;
  /// Linears that read the same input, in the order of the data.
  const std::vector<std::vector<arch::Slot>>& groups() const;

  const arch::LayerSpec& spec() const { return spec_; }
  /// In tensor_table order.
  const std::vector<NamedLinear>& linears() const { return linears_; }
  const std::map<arch::TensorId, std::shared_ptr<LinearModule>>& linears_by_id() const { return linears_by_id_; }
  const std::map<arch::TensorId, torch::Tensor>& parameters_by_id() const { return parameters_by_id_; }

 private:
  torch::Tensor norm(const torch::Tensor& x, const torch::Tensor& weight, const BlockContext& context) const;
  /// Rotary embedding, with the norm of queries or keys before or after it where the model has one.
  torch::Tensor rotated(const torch::Tensor& heads, const torch::Tensor& norm_weight,
                        const BlockContext& context) const;
  /// What o reads, of what q, k and v read.
  torch::Tensor attention(const torch::Tensor& x, const BlockContext& context) const;

  arch::LayerSpec spec_;
  double eps_;
  std::vector<NamedLinear> linears_;
  std::map<arch::TensorId, std::shared_ptr<LinearModule>> linears_by_id_;
  std::map<arch::TensorId, torch::Tensor> parameters_by_id_;
  std::shared_ptr<LinearModule> q_, k_, v_, o_, gate_, up_, down_;
  torch::Tensor input_norm_, post_norm_, q_norm_, k_norm_;  // q_norm_ and k_norm_ may be undefined
};

}  // namespace crumb::model
