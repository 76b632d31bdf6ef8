// Inputs of products rounded to bfloat16, in memory of the calling thread: valid until it asks again.
#pragma once

#include "core/common/executor.h"
#include "kernels/rounding.h"

namespace crumb::kernels {

/// x [tokens, cols], rows x_stride floats apart.
Bf16Tokens bf16_tokens(const float* x, int64_t x_stride, int64_t tokens, int64_t cols, Executor& executor, Isa isa);
/// The same as floats [tokens, cols], without padding.
const float* bf16_values(const float* x, int64_t x_stride, int64_t tokens, int64_t cols, Executor& executor, Isa isa);

}  // namespace crumb::kernels
