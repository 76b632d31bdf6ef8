// A linear layer whose weight is trained on the SEQ grid (kernels/seq.h): two bits a weight, one scale a row or group.
#pragma once

#include <torch/torch.h>

#include "kernels/seq.h"
#include "qat/quant_linear.h"
#include "quant/grid.h"
#include "quant/quantized_tensor.h"

namespace crumb::qat {

struct SeqOptions {
  int64_t group_size = 0;  // weights that share a scale; 0: a whole row
  quant::ScaleInit init = quant::ScaleInit::mse;
  kernels::OutsideGradient outside = kernels::OutsideGradient::zero;
};

/// y = x Q^T + b with Q = seq_fake_quantize(weight, log_scale).
///
/// Parameters: "weight" [rows, cols] float32 master, "log_scale" [rows, groups] float32 (ln s), "bias" [rows] if any.
/// The forward pass rounds s to 6 significant bits, so quantized() is exactly what it multiplies with. UserError if
/// group_size does not divide cols. Keep the masters in float32: bfloat16 belongs to x.
class SeqLinearImpl : public QuantLinear {
 public:
  /// `bias` may be undefined. The tensors become the parameters; scales start as `options.init` says.
  SeqLinearImpl(torch::Tensor weight, torch::Tensor bias, const SeqOptions& options = {});
  /// Starts from a copy of a linear layer's parameters.
  explicit SeqLinearImpl(const torch::nn::Linear& linear, const SeqOptions& options = {});

  /// x [..., cols] float32 or bfloat16 -> [..., rows], dtype of x
  torch::Tensor forward(const torch::Tensor& x) override;
  torch::Tensor effective_weight() override;
  void pretty_print(std::ostream& stream) const override;

  quant::QuantFormat format() const override;
  using QuantLinear::quantized;
  quant::QuantizedTensor quantized(int64_t begin, int64_t end) const override;
  torch::Tensor log_scales() const override { return log_scale.detach(); }
  void set_scales(const torch::Tensor& scales) override;
  const SeqOptions& options() const { return options_; }

  torch::Tensor log_scale;  // [rows, groups]

 private:
  SeqOptions options_;
};
TORCH_MODULE(SeqLinear);

/// SEQ linears with the options of a job.
QuantLinearMaker seq_linear_maker(const QatMethod& method);

/// A copy of `net` whose torch::nn::Linear layers are SeqLinear layers with the same first values; other layers are
/// shared, and so are those whose name ("0", "1", or as given) matches a pattern of `exclude`.
torch::nn::Sequential with_seq_linears(const torch::nn::Sequential& net, const SeqOptions& options = {},
                                       const std::vector<std::string>& exclude = {});
torch::nn::ModuleList with_seq_linears(const torch::nn::ModuleList& list, const SeqOptions& options = {},
                                       const std::vector<std::string>& exclude = {});

}  // namespace crumb::qat
