// A linear layer whose weight is trained on a symmetric grid of equal steps with a level 0 (int, ternary), by the
// gradients of LSQ (qat/fake_quantize.h). Pruned weights are 0 and stay it.
#pragma once

#include <torch/torch.h>

#include "qat/quant_linear.h"

namespace crumb::qat {

/// y = x Q^T + b with Q = fake_quantize(weight * mask, log_scale).
///
/// Parameters: "weight" [rows, cols] float32 master, "log_scale" [rows, groups] float32 (ln s), "bias" [rows] if any.
/// The mask is no parameter: it comes with the folder that training begins with (qat/start.h). On the CPU only.
class LsqLinearImpl : public QuantLinear {
 public:
  /// `bias` may be undefined. The tensors become the parameters; first scales by `init`. `format` is symmetric.
  LsqLinearImpl(torch::Tensor weight, torch::Tensor bias, const quant::QuantFormat& format, quant::ScaleInit init);

  /// x [..., cols] float32 or bfloat16 -> [..., rows], dtype of x
  torch::Tensor forward(const torch::Tensor& x) override;
  torch::Tensor effective_weight() override;

  quant::QuantFormat format() const override { return format_; }
  using QuantLinear::quantized;
  quant::QuantizedTensor quantized(int64_t begin, int64_t end) const override;
  torch::Tensor log_scales() const override { return log_scale.detach(); }
  void set_scales(const torch::Tensor& scales) override;
  void set_mask(const std::vector<uint8_t>& mask) override;

  torch::Tensor log_scale;  // [rows, groups]

 private:
  torch::Tensor kept_weight() const;  // 0 where it is pruned

  quant::QuantFormat format_;
  torch::Tensor mask_;  // [rows, cols], 1 or 0; undefined: nothing is pruned
};

/// LSQ linears with the options of a job.
QuantLinearMaker lsq_linear_maker(const QatMethod& method);

}  // namespace crumb::qat
