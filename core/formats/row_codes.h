// Rows of block types as the codes and scales they were written from (encode_codes_row), where they still are that.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/formats/block_levels.h"
#include "core/formats/codec.h"

namespace crumb::formats {

class RowCodes {
 public:
  /// A type with a level_factor() for `levels`.
  RowCodes(TensorType type, std::span<const float> levels);

  /// Takes one row of `cols` weights apart: codes [cols] (null: not wanted, but checked) and one scale a block, scales
  /// [cols / block_size(type)]. False, with both left unspecified, if a block holds anything but the levels times a
  /// positive finite scale. `minima`, one a block, for types that have them: they may be any finite numbers, which are
  /// added to those products; the first level is 0 then.
  bool decode(const void* row, int64_t cols, uint8_t* codes, float* scales, float* minima = nullptr) const;

 private:
  bool find_codes(const int8_t* integers, int64_t n, uint8_t* codes) const;

  TensorType type_;
  const BlockForm& form_;
  std::vector<float> levels_;
  int factor_;
  std::array<int16_t, 256> table_;  // from the integer that a block multiplies its scale with to its code, or -1
  bool takes_all_;                  // whether every integer that the type holds has one
  uint8_t first_;                   // integer, where they are evenly spaced,
  int shift_;                       // 1 or 2 apart; otherwise -1
};

}  // namespace crumb::formats
