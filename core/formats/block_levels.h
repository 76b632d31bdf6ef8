// Rows of block types as integers and the numbers that make weights of them: all that a block type is but for its
// packing. decode_row() goes through here, so that whoever keeps the integers has the same weights.
#pragma once

#include <cstdint>
#include <span>

#include "core/formats/codec.h"

namespace crumb::formats {

/// What the weights of neighbouring columns share: weight = level * scale + minimum, each operation rounded to float32.
/// The product is exact in every type, so that a fused multiply-add gives the same. Nothing here is checked: a scale of
/// a damaged file may be infinite or NaN.
struct LevelGroup {
  float scale = 0;
  float minimum = -0.0f;  // -0, which changes no sum, in types without minima
};

struct BlockForm {
  std::span<const int8_t> levels;  // that a weight may have, ascending
  int64_t group_cols = 0;          // columns of a LevelGroup, a divisor of block_size(): 16, 32, 256 or 512
  bool has_minima = false;
};

/// Null for f32, f16 and bf16.
const BlockForm* block_form(TensorType type);

/// One row: levels [cols] (null: not wanted), groups [cols / group_cols]; cols is a multiple of block_size(). Types
/// with a block_form().
void decode_levels(TensorType type, const void* data, int64_t cols, int8_t* levels, LevelGroup* groups);

}  // namespace crumb::formats
