// Root-mean-square normalisation (kernels/rms_norm.h) on tensors, with gradients:
//
//   torch.ops.crumb.rms_norm(Tensor x, Tensor weight, float eps, ScalarType dtype) -> Tensor
//   torch.ops.crumb.rms_norm_backward(Tensor grad, Tensor x, Tensor weight, float eps, bool weight_gradient)
//     -> (Tensor, Tensor)
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace crumb::kernels {

/// y = x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in float32 (float64 for x of that type).
/// x [..., n] float32 or bfloat16; weight [n] float32; y [..., n] of type `dtype`. Differentiable by x and weight.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType dtype);

/// Gradients by x, in its type, and by weight, which is empty unless asked for. grad [..., n] has y's type.
std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad, const at::Tensor& x,
                                                     const at::Tensor& weight, double eps, bool weight_gradient);

}  // namespace crumb::kernels
