// A quantized matrix as codes and scales: the currency between folders.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace crumb::quant {

enum class Grid {
  seq,  // (code - 1.5) * scale, 2 bits
  intn  // (code - zero_point) * scale, 2..8 bits; symmetric: zero_point = 2^(bits-1)
};
std::string grid_name(Grid grid);  // "seq", "int"

struct QuantFormat {
  Grid grid = Grid::seq;
  int bits = 2;
  bool symmetric = true;   // intn only
  int64_t group_size = 0;  // 0: one scale a row
  int64_t groups(int64_t cols) const { return group_size == 0 ? 1 : cols / group_size; }
  int64_t group_cols(int64_t cols) const { return group_size == 0 ? cols : group_size; }
  bool operator==(const QuantFormat&) const = default;
};

/// Rows [0, rows) of a quantized matrix (a whole one or a block of rows).
struct QuantizedTensor {
  QuantFormat format;
  int64_t rows = 0, cols = 0;
  std::vector<uint8_t> codes;        // [rows, cols], one byte a code
  std::vector<float> scales;         // [rows, groups], 6 significant bits
  std::vector<int32_t> zero_points;  // [rows, groups], asymmetric intn only

  /// out[rows, cols]
  void dequantize(float* out) const;
};

/// Bytes of one packed row: ceil(cols * bits / 8); a little-endian bit stream, low bits first.
int64_t packed_row_bytes(int64_t cols, int bits);
void pack_row(const uint8_t* codes, int64_t cols, int bits, uint8_t* out);
void unpack_row(const uint8_t* packed, int64_t cols, int bits, uint8_t* codes);

}  // namespace crumb::quant
