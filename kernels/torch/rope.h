// Rotary position embedding (kernels/rope.h) on tensors, with gradients:
//
//   torch.ops.crumb.rope(Tensor x, Tensor cos, Tensor sin, bool inverse=False) -> Tensor
#pragma once

#include <ATen/core/Tensor.h>

namespace crumb::kernels {

/// Rotates the pairs (i, i + half) of every head by the angle of its position; components from 2 half on stay.
/// x [batch, tokens, heads, head_dim] float32 or bfloat16; cos, sin [tokens, half] float32; result in x's type.
/// `inverse` turns the other way, which is the gradient. Differentiable by x.
at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse = false);

}  // namespace crumb::kernels
