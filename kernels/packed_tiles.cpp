#include "kernels/packed_tiles.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/common/error.h"

namespace crumb::kernels {
namespace {

struct Place {
  int64_t word;
  int bit;
};

Place place_of(const PackedShape& shape, int64_t row, int64_t col) {
  const TilePlace at =
      tile_place(shape.bits, static_cast<int>(row % kTileRows), static_cast<int>(col % kTileBlockCols));
  const int64_t block = row / kTileRows * shape.blocks() + col / kTileBlockCols;
  return {(block * tiles_per_block(shape.bits) + at.tile) * kTileWords + at.lane * 4 + at.word, at.bit};
}

Place scale_place(const PackedShape& shape, int64_t row, int64_t group) {
  return {(row / kTileRows * shape.groups() + group) * 8 + row % 8, row / 8 % 2 == 0 ? 0 : 16};
}

int64_t stored_groups(const PackedShape& shape) { return (shape.cols + shape.group_cols - 1) / shape.group_cols; }

}  // namespace

const char* packing_obstacle(const PackedShape& shape) {
  if (shape.bits != 2 && shape.bits != 4 && shape.bits != 8) return "codes are not of 2, 4 or 8 bits";
  if (shape.rows < 1 || shape.cols < 1) return "the matrix is empty";
  if (shape.cols > kMostTileCols) return "there are more than 65536 columns";
  if (shape.rows > INT32_MAX / 2) return "there are too many rows";
  if (shape.group_cols != shape.cols &&
      (shape.group_cols < 1 || shape.group_cols % kTileSliceCols != 0 || shape.cols % shape.group_cols != 0))
    return "groups are not a multiple of 32 columns that divides the row";
  const bool is_by_128 = shape.group_cols % kTileBlockCols == 0;
  if (shape.group_cols != shape.cols && (shape.bits == 8 || (shape.bits == 2 && !is_by_128)))
    return "codes of 2 bits have groups of multiples of 128 columns or a scale a row, codes of 8 bits a scale a row";
  // What the kernels' bfloat16 constants hold: 32 step + zero, 128 + zero.
  if (shape.bits == 2 ? shape.step < 1 || shape.step > 2 || shape.zero < 0 || shape.zero > 3 * shape.step
                      : shape.step != 1)
    return "steps are 1, or 2 for codes of 2 bits, and the zero is one of their levels";
  if (shape.bits == 4 && (shape.zero < 0 || shape.zero > 15)) return "the zero is not a code of 4 bits";
  if (shape.bits == 8 && shape.zero != 128) return "the zero of codes of 8 bits is not 128";
  return nullptr;
}

PackedShape packed_shape(PackedShape shape) {
  if (!shape.has_row_scales())
    shape.group_cols = shape.group_cols % kTileBlockCols == 0 ? kTileBlockCols : kTileSliceCols;
  return shape;
}

void pack_tiles(const PackedShape& shape, const uint8_t* codes, const float* scales, uint32_t* code_words,
                uint32_t* scale_words) {
  const char* obstacle = packing_obstacle(shape);
  CRUMB_ASSERT(obstacle == nullptr);
  const PackedShape packed = packed_shape(shape);
  std::fill_n(code_words, packed.code_words(), 0u);
  std::fill_n(scale_words, packed.scale_words(), 0u);
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t col = 0; col < shape.cols; ++col) {
      const uint32_t code = codes[row * shape.cols + col];
      if (code >> shape.bits != 0)
        run_error("row {}, column {}: code {} has more than {} bits", row, col, code, shape.bits);
      const Place at = place_of(packed, row, col);
      code_words[at.word] |= code << at.bit;
    }
    const int64_t groups = stored_groups(packed), before = shape.cols / shape.group_cols;
    for (int64_t group = 0; group < groups; ++group) {
      const float scale = scales[row * before + group * packed.group_cols / shape.group_cols];
      const auto bits = std::bit_cast<uint32_t>(scale);
      if ((bits & 0xffff) != 0 || !std::isfinite(scale))
        run_error("row {}, group {}: the scale {} is not a bfloat16", row, group, scale);
      const Place at = scale_place(packed, row, group);
      scale_words[at.word] |= bits >> 16 << at.bit;
    }
  }
}

void unpack_tiles(const PackedShape& shape, const uint32_t* code_words, const uint32_t* scale_words, uint8_t* codes,
                  float* scales) {
  const int64_t groups = stored_groups(shape);
  const uint32_t mask = (1u << shape.bits) - 1;
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t col = 0; col < shape.cols; ++col) {
      const Place at = place_of(shape, row, col);
      codes[row * shape.cols + col] = static_cast<uint8_t>(code_words[at.word] >> at.bit & mask);
    }
    for (int64_t group = 0; group < groups; ++group) {
      const Place at = scale_place(shape, row, group);
      scales[row * groups + group] = std::bit_cast<float>(scale_words[at.word] >> at.bit << 16);
    }
  }
}

}  // namespace crumb::kernels
