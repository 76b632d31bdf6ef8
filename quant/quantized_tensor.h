// A quantized matrix as codes and scales: the currency between folders.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/grid.h"

namespace crumb::quant {

/// Rows [0, rows) of a quantized matrix (a whole one or a block of rows).
struct QuantizedTensor {
  QuantFormat format;
  int64_t rows = 0, cols = 0;
  std::vector<uint8_t> codes;        // [rows, cols], one byte a code
  std::vector<float> scales;         // [rows, groups], 6 significant bits
  std::vector<int32_t> zero_points;  // [rows, groups], where the format has them
  std::vector<float> minima = {};    // likewise
  std::vector<uint8_t> mask = {};  // [rows, cols], where the format has one: 1 for weights that stay, 0 for pruned ones

  /// What the weights of a group share; groups are numbered row by row.
  GroupScale group(size_t i) const;
  void set_group(size_t i, const GroupScale& group);
  /// Makes room for the scales of all groups, and for the zero points or minima that the format has.
  void resize_groups();
  /// out[rows, cols] = (level - zero point) * scale + minimum
  void dequantize(float* out) const;
  /// The first weight, row by row, that is pruned and not 0; -1: there is none.
  int64_t find_broken_mask() const;
};

/// Bytes of one packed row: ceil(cols * bits / 8); a little-endian bit stream, low bits first.
int64_t packed_row_bytes(int64_t cols, int bits);
void pack_row(const uint8_t* codes, int64_t cols, int bits, uint8_t* out);
void unpack_row(const uint8_t* packed, int64_t cols, int bits, uint8_t* codes);

}  // namespace crumb::quant
