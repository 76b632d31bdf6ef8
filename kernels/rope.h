// Rotary position embedding with half-split pairs: (x_i, x_{i+half}) is turned by the angle of pair i at the row's
// position. Data is float or Bf16, arithmetic is float. Su et al., arXiv:2104.09864.
#pragma once

#include <cstdint>

#include "core/common/executor.h"
#include "kernels/bf16.h"
#include "kernels/cpu_features.h"

namespace crumb::kernels {

/// x, y [batch * tokens, heads, head_dim]; cos, sin [tokens, half], 2 * half <= head_dim, components beyond 2 * half
/// are copied; y may be x. `inverse` turns the other way, which is the gradient. Instances: float, Bf16.
template <class T>
void rope(const T* x, const float* cos, const float* sin, int64_t batch, int64_t tokens, int64_t heads,
          int64_t head_dim, int64_t half, bool inverse, T* y, Executor& executor, Isa isa = best_isa());

}  // namespace crumb::kernels
