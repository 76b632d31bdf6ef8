// Activations as products read them: rounded to int8 with a scale, or to bfloat16.
#pragma once

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cpu_features.h"

namespace crumb::kernels {

/// codes [n] = x [n] / scale to the nearest integer, ties to even; returns the scale, max|x| / 127. 0 where all of them
/// become 0, NaN where one is not finite; the codes are then 0. All instruction sets give the same bits.
float round_to_int8(const float* x, int64_t n, int8_t* codes, Isa isa = best_isa());

/// y [n] = x [n] to the nearest bfloat16, ties to even; NaN stays NaN.
void round_to_bf16(const float* x, int64_t n, Bf16* y, Isa isa = best_isa());

/// Tokens of bfloat16.
struct Bf16Tokens {
  const Bf16* values = nullptr;  // [tokens, cols], rows `stride` apart; from cols to stride there are zeros
  int64_t tokens = 0, cols = 0, stride = 0;
};
/// A stride for rows of so many columns: a multiple of 32, with which neighbouring tokens do not meet in the cache.
int64_t bf16_stride(int64_t cols);

}  // namespace crumb::kernels
