// Products with packed weights on a CUDA device: y [tokens, rows] = x [tokens, cols] W^T + bias, W as packed tiles
// (packed_tiles.h). Sums are made in an order that depends on the shape and the plan alone: the same bits every time.
// Pointers are the device's; a call returns before the device is done. A kernel that cannot be launched is a RunError.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cuda/matmul_plan.h"
#include "kernels/cuda/stream.h"
#include "kernels/packed_tiles.h"

namespace crumb::kernels {

/// A weight matrix on the device: code_words() and scale_words() of a packed_shape().
struct PackedMatrix {
  PackedShape shape;
  const uint32_t* codes = nullptr;  // at a multiple of 16 bytes
  const uint32_t* scales = nullptr;
};

/// The functions of packed_tiles.h once more, of arrays on the device; packing_obstacle(shape) is null. Here codes are
/// cut to their bits and scales are rounded to bfloat16, without an error for those that do not fit.
void pack_tiles(const PackedShape& shape, const uint8_t* codes, const float* scales, uint32_t* code_words,
                uint32_t* scale_words, CudaStream stream);

/// out [rows, cols] = the weights, rounded to bfloat16: exact where a level times its scale has 8 significant bits, as
/// those of SEQ and ternary do. What products of many tokens are made from, by cuBLASLt.
void dequantize(const PackedMatrix& matrix, Bf16* out, CudaStream stream);

/// Activations in int8, a scale a token, as round_to_int8() leaves them.
struct PackedTokens {
  int8_t* codes = nullptr;        // [tokens, blocks * 128], the columns in the order of int8_position(), then zeros
  float* scales = nullptr;        // [tokens]
  int32_t* sums = nullptr;        // [tokens]: of the codes
  int32_t* block_sums = nullptr;  // [tokens, blocks]: of 128 columns each
};
/// codes = round to even(x / scale), scale = max |x| / 127: those of quant/activations.h. A token that is 0 has scale
/// 0; one with a value that is not finite has scale NaN. x [tokens, x_stride], of which cols are read.
void round_to_int8(const Bf16* x, int64_t tokens, int64_t cols, int64_t x_stride, const PackedTokens& out,
                   CudaStream stream);

/// One product. Either `x` or `int8` is given.
struct PackedProduct {
  PackedMatrix matrix;
  int64_t tokens = 0;
  const Bf16* x = nullptr;  // [tokens, x_stride]; fast where rows begin at multiples of 16 bytes
  int64_t x_stride = 0;     // elements, of x alone
  const PackedTokens* int8 = nullptr;
  const float* bias = nullptr;  // [rows] or null
  float* y = nullptr;           // [tokens, rows], or
  Bf16* y_bf16 = nullptr;       // the same rounded
  void* workspace = nullptr;    // plan.workspace_bytes, may be null where that is 0
  /// The weights were written before the kernel that runs ahead in the stream, so that they may be read while that one
  /// still runs (compute capability 9.0).
  bool weights_are_ready = false;
};

/// Computes with a plan of plan_matmul() for the same shape, tokens and kind of activations.
///
/// Floats: the sum over the columns of (step * code - zero) * x in float32, exact products, times the scale of the row,
/// or with the scale of each group applied to the sum of the group. A token with a value that is not finite gives
/// values that are not finite. The kernel for few tokens takes |x| < 2^64 (above: values that are not finite) and loses
/// products below 2^-80. int8: with a scale a row, y = float(step * sum(code * x) - zero * sum(x)) * (scale of
/// the row * scale of the token) + bias as one fused multiply-add, with exact integer sums: the bits of code_matmul()
/// of kernels/code_matmul.h. With groups, float32 sums of such terms.
void packed_matmul(const PackedProduct& product, const MatmulPlan& plan, CudaStream stream);

}  // namespace crumb::kernels
