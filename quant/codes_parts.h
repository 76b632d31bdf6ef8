// What a quantized linear is stored as in a codes-and-scales folder (docs/formats.md): tensors whose names are the
// linear's with one of these suffixes.
#pragma once

#include <cstdint>
#include <vector>

#include "core/formats/dtype.h"
#include "quant/quantized_tensor.h"

namespace crumb::quant {

inline constexpr const char *kCodesSuffix = "_codes", *kScaleSuffix = "_scale", *kZeroPointSuffix = "_zero_point",
                            *kMinimumSuffix = "_minimum", *kMaskSuffix = "_mask", *kShapeSuffix = "_shape";

struct CodesPart {
  const char* suffix;
  formats::DType dtype;
  int64_t rows, cols;
  int64_t row_bytes() const { return cols * formats::dtype_bytes(dtype); }
};

/// Codes, scales and, where the format has them, zero points or minima and the mask, in this order. Beside them stands
/// the shape, i64 [2].
std::vector<CodesPart> codes_parts(int64_t rows, int64_t cols, const QuantFormat& format);
/// Of all of these parts.
int64_t codes_bytes(int64_t rows, int64_t cols, const QuantFormat& format);

}  // namespace crumb::quant
