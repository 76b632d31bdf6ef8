// SEQ fake quantization (kernels/seq.h) on tensors, with gradients; also registered as torch.ops.crumb.*:
//
//   seq_fake_quantize(Tensor weight, Tensor log_scale, int group_size=0, str outside_gradient="zero",
//                     ScalarType? dtype=None) -> Tensor
//   seq_forward(Tensor weight, Tensor scale, int group_size=0, ScalarType? dtype=None) -> Tensor
//   seq_backward(Tensor weight, Tensor scale, Tensor grad, int group_size=0, str outside_gradient="zero")
//     -> (Tensor, Tensor)
//   seq_codes(Tensor weight, Tensor scale, int group_size=0) -> Tensor
//
// On a CPU, and on a CUDA device in a build with nvcc, they run the kernels; on other devices the same definition
// composed of Torch's operators.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "kernels/seq.h"

namespace crumb::kernels {

/// y = level of the code of w, with s = round_scale(exp(log_scale)); the gradient passes the rounding of s unchanged.
///
/// weight      [rows, cols]    float32
/// log_scale   [rows, groups]  float32, same device, groups = cols / group_size; group_size 0: one group a row
/// return      [rows, cols]    of type `dtype`, rounded to it: float32 or bfloat16, in which every level is exact
///
/// Gradients: see kernels/seq.h. A shape or dtype that does not fit is a c10::Error that says what it was.
at::Tensor seq_fake_quantize(const at::Tensor& weight, const at::Tensor& log_scale, int64_t group_size,
                             OutsideGradient outside, at::ScalarType dtype = at::kFloat);

/// Without autograd; `scale` [rows, groups] is s itself and is rounded by round_scale.
at::Tensor seq_forward(const at::Tensor& weight, const at::Tensor& scale, int64_t group_size,
                       at::ScalarType dtype = at::kFloat);
/// Gradients by weight [rows, cols] and by ln s [rows, groups]; `grad` is float32 or bfloat16.
std::tuple<at::Tensor, at::Tensor> seq_backward(const at::Tensor& weight, const at::Tensor& scale,
                                                const at::Tensor& grad, int64_t group_size, OutsideGradient outside);
/// uint8 [rows, cols]
at::Tensor seq_codes(const at::Tensor& weight, const at::Tensor& scale, int64_t group_size);

/// kernels::round_scale of every element, on any device.
at::Tensor round_scale(const at::Tensor& scale);

/// "zero" or "ste"; anything else is a UserError.
OutsideGradient outside_gradient_from_name(std::string_view name);
std::string_view outside_gradient_name(OutsideGradient outside);

}  // namespace crumb::kernels
