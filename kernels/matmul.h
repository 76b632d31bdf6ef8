// The product of some tokens' activations with a matrix of float weights.
#pragma once

#include <cstdint>

#include "core/common/executor.h"
#include "core/common/half.h"
#include "kernels/bf16.h"
#include "kernels/cpu_features.h"

namespace crumb::kernels {

/// y[t, r] = sum_k x[t, k] * w[r, k] (+ bias[r]) for `tokens` t and `rows` r.
struct MatmulArguments {
  const float* x;  // [tokens, cols], rows x_stride floats apart
  int64_t x_stride, tokens;
  const float* w;     // [rows, cols], or what pack_weights made of it
  const float* bias;  // [rows] or null
  int64_t rows, cols;
  float* y;  // [tokens, rows], rows y_stride floats apart
  int64_t y_stride;
  bool packed = false;           // w is from pack_weights of the same instruction set
  const Bf16* w_bf16 = nullptr;  // instead of w: from pack_weights_bf16
  const Half* w_f16 = nullptr;   // or from pack_weights_f16
};

/// On every instruction set but the reference a value is the sum, in order of k, of float sums of 256 products each,
/// which are chains of fused multiply-adds: it does not depend on the other tokens nor on the number of threads. The
/// reference sums in double.
/// The results are the same for packed weights; they save the work of ordering W anew in each call, which shows when
/// tokens are few.
void matmul(const MatmulArguments& arguments, Executor& executor, Isa isa = best_isa());

/// The same of x rounded to bfloat16 (kernels/rounding.h), with weights from pack_weights_bf16. Where a processor has
/// products of bfloat16 (avx512_bf16) they take half of the time: sums of 256 columns are then chains of sums of two
/// products, by the instruction's rule (to nearest, without subnormals); elsewhere the values are those of matmul().
void matmul_of_bf16(const MatmulArguments& arguments, Executor& executor, Isa isa = best_isa());

/// Floats that pack_weights needs.
int64_t packed_size(int64_t rows, int64_t cols);
/// The same with weights rounded to bfloat16: half of the bytes to read, and the same results where none was rounded.
void pack_weights_bf16(const float* w, int64_t rows, int64_t cols, Bf16* packed, Isa isa = best_isa());
/// Likewise, to float16.
void pack_weights_f16(const float* w, int64_t rows, int64_t cols, Half* packed, Isa isa = best_isa());
/// w [rows, cols] in the order in which matmul reads it.
void pack_weights(const float* w, int64_t rows, int64_t cols, float* packed, Isa isa = best_isa());
/// One row of weights that were packed by the same instruction set: out [cols].
void read_packed_row(const float* packed, int64_t cols, int64_t row, float* out, Isa isa = best_isa());
void read_packed_row(const Bf16* packed, int64_t cols, int64_t row, float* out, Isa isa = best_isa());
void read_packed_row(const Half* packed, int64_t cols, int64_t row, float* out, Isa isa = best_isa());

}  // namespace crumb::kernels
