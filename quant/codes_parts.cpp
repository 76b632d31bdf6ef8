#include "quant/codes_parts.h"

namespace crumb::quant {

using formats::DType;

std::vector<CodesPart> codes_parts(int64_t rows, int64_t cols, const QuantFormat& format) {
  const int64_t groups = format.groups(cols);
  std::vector<CodesPart> parts = {{kCodesSuffix, DType::u8, rows, packed_row_bytes(cols, format.bits)},
                                  {kScaleSuffix, DType::f32, rows, groups}};
  if (format.has_zero_points()) parts.push_back({kZeroPointSuffix, DType::i32, rows, groups});
  if (format.has_minima) parts.push_back({kMinimumSuffix, DType::f32, rows, groups});
  if (format.has_mask) parts.push_back({kMaskSuffix, DType::u8, rows, packed_row_bytes(cols, 1)});
  return parts;
}

int64_t codes_bytes(int64_t rows, int64_t cols, const QuantFormat& format) {
  int64_t bytes = 0;
  for (const CodesPart& part : codes_parts(rows, cols, format)) bytes += rows * part.row_bytes();
  return bytes;
}

}  // namespace crumb::quant
