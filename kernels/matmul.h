// The product of some tokens' activations with a matrix of float weights.
#pragma once

#include <cstdint>

#include "core/common/executor.h"
#include "kernels/cpu_features.h"

namespace crumb::kernels {

/// y[t, r] = sum_k x[t, k] * w[r, k] (+ bias[r]) for `tokens` t and `rows` r.
struct MatmulArguments {
  const float* x;  // [tokens, cols], rows x_stride floats apart
  int64_t x_stride, tokens;
  const float* w;     // [rows, cols]
  const float* bias;  // [rows] or null
  int64_t rows, cols;
  float* y;  // [tokens, rows], rows y_stride floats apart
  int64_t y_stride;
};

/// On every instruction set but the reference a value is the sum, in order of k, of float sums of 256 products each,
/// which are chains of fused multiply-adds: it does not depend on the other tokens nor on the number of threads. The
/// reference sums in double.
void matmul(const MatmulArguments& arguments, Executor& executor, Isa isa = best_isa());

}  // namespace crumb::kernels
