// The gate of a feed-forward network (kernels/swiglu.h) on tensors, with gradients:
//
//   torch.ops.crumb.swiglu(Tensor gate, Tensor up) -> Tensor
//   torch.ops.crumb.swiglu_backward(Tensor grad, Tensor gate, Tensor up) -> (Tensor, Tensor)
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace crumb::kernels {

/// silu(gate) * up; all of one shape, float32 or bfloat16. Differentiable by both.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

/// Gradients by gate and by up.
std::tuple<at::Tensor, at::Tensor> swiglu_backward(const at::Tensor& grad, const at::Tensor& gate,
                                                   const at::Tensor& up);

}  // namespace crumb::kernels
