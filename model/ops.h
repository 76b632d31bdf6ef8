// The element-wise parts of a decoder block. On the CPU in float32 and bfloat16 they run as one pass over memory
// forward and one backward (kernels/rms_norm.h, rope.h, swiglu.h); elsewhere, and as oracle, as the Torch operations of
// namespace composite.
#pragma once

#include <torch/torch.h>

namespace crumb::model {

/// y = x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in float32.
/// x [..., n] float32 or bfloat16; weight [n] float32; y [..., n] of dtype `out`.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps, torch::ScalarType out);

/// Rotates the pairs (i, i + dim/2) of every head by the angle of its position; components from dim on stay.
/// x [batch, tokens, heads, head_dim]; cos, sin [tokens, dim / 2] float32; result in x's dtype.
torch::Tensor rope(const torch::Tensor& x, const torch::Tensor& cos, const torch::Tensor& sin);

/// silu(gate) * up, in their dtype.
torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up);

namespace composite {
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps, torch::ScalarType out);
torch::Tensor rope(const torch::Tensor& x, const torch::Tensor& cos, const torch::Tensor& sin);
torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up);
}  // namespace composite

}  // namespace crumb::model
