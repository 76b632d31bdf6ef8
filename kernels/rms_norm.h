// Root-mean-square normalisation, forward and backward. y = x / sqrt(mean(x^2) + eps) * weight over rows of `cols`
// values. Data is float or Bf16, arithmetic is float. Zhang and Sennrich, arXiv:1910.07467.
#pragma once

#include <cstdint>

#include "core/common/executor.h"
#include "kernels/bf16.h"
#include "kernels/cpu_features.h"

namespace crumb::kernels {

/// x, y [rows, cols]; weight [cols]. Instances (In, Out): (float, float), (float, Bf16), (Bf16, Bf16).
template <class In, class Out>
void rms_norm_forward(const In* x, const float* weight, float eps, int64_t rows, int64_t cols, Out* y,
                      Executor& executor, Isa isa = best_isa());

/// grad_x [rows, cols] and grad_weight [cols] (may be null) from grad_y. The sum over rows is made in a fixed order for
/// any number of threads.
template <class In, class Out>
void rms_norm_backward(const In* x, const float* weight, const Out* grad_y, float eps, int64_t rows, int64_t cols,
                       In* grad_x, float* grad_weight, Executor& executor, Isa isa = best_isa());

}  // namespace crumb::kernels
