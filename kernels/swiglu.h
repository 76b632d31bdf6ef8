// The gate of a feed-forward network, forward and backward: y = silu(gate) * up, silu(g) = g / (1 + e^-g).
// Data is float or Bf16, arithmetic is float. Shazeer, arXiv:2002.05202.
#pragma once

#include <cstdint>

#include "core/common/executor.h"
#include "kernels/bf16.h"
#include "kernels/cpu_features.h"

namespace crumb::kernels {

/// gate, up, y [n]. Instances: float, Bf16.
template <class T>
void swiglu_forward(const T* gate, const T* up, int64_t n, T* y, Executor& executor, Isa isa = best_isa());

/// grad_gate [n] and grad_up [n] from grad_y [n].
template <class T>
void swiglu_backward(const T* gate, const T* up, const T* grad_y, int64_t n, T* grad_gate, T* grad_up,
                     Executor& executor, Isa isa = best_isa());

}  // namespace crumb::kernels
