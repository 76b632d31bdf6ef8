// What the matmul kernels read: one struct for all of them.
#pragma once

#include <cstdint>

namespace crumb::kernels {

struct MatmulArgs {
  const void* tiles;          // packed_tiles.h
  const uint32_t* scales;     // likewise
  const void* x;              // bfloat16 [tokens, x_stride]; or int8 in the order of int8_position(), filled up with 0
  const float* token_scales;  // [tokens], of int8; null: 1
  const int32_t* token_sums;  // [tokens], of int8: sums of the row
  const int32_t* block_sums;  // [tokens, blocks], of int8: of each 128 columns
  const float* bias;          // [rows] or null
  void* y;                    // [tokens, rows]
  void* workspace;            // [splits, tokens, rows] of 32 bits where splits > 1
  int64_t x_stride;           // elements
  int32_t rows, cols, blocks, groups, tokens;
  int32_t step, zero;
  int32_t splits;                // parts of the columns that are summed by themselves
  int32_t tiles_a_warp;          // skinny: blocks of 128 columns of a warp
  bool x_is_aligned, y_is_bf16;  // x: rows begin at multiples of 16 bytes
};

}  // namespace crumb::kernels
