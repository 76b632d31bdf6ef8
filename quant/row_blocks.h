// How a matrix is cut where it is read or written by blocks of rows.
#pragma once

#include <algorithm>
#include <cstdint>

namespace crumb::quant {

/// Rows a block, so that one holds about 16 MB of floats.
inline int64_t rows_per_block(int64_t cols) {
  constexpr int64_t kBlockFloats = int64_t{4} << 20;
  return std::max<int64_t>(1, kBlockFloats / cols);
}

/// Calls block(begin, end) for rows [0, rows), ascending.
template <class Block>
void for_each_row_block(int64_t rows, int64_t cols, const Block& block) {
  const int64_t step = rows_per_block(cols);
  for (int64_t begin = 0; begin < rows; begin += step) block(begin, std::min(begin + step, rows));
}

}  // namespace crumb::quant
