// AdamW (kernels/adamw.h) on tensors:
//
//   adamw_(Tensor(a!) weight, Tensor gradient, Tensor(b!) m, Tensor(c!) v, Tensor? row_factor, float gradient_factor,
//          float beta1, float beta2, float eps, float decay, float step_size, float root_correction) -> ()
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/adamw.h"

namespace crumb::kernels {

/// One step in place. weight, m and v are contiguous float32 of one shape, gradient too but for being contiguous;
/// row_factor [size of the first dimension] float32. Without autograd. What does not fit is a c10::Error that says what
/// it was.
void adamw_(const at::Tensor& weight, const at::Tensor& gradient, const at::Tensor& m, const at::Tensor& v,
            const std::optional<at::Tensor>& row_factor, const AdamWStep& step);

}  // namespace crumb::kernels
