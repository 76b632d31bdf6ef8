// Round-to-nearest on any grid, and scales that came out at an end of their range.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quant/quantized_tensor.h"

namespace crumb::quant {

float max_abs(const float* w, int64_t n);
/// n > 0
double mean_abs(const float* w, int64_t n);

/// Groups of w [rows, cols] whose scale stands at an end of the range that kernels::round_scale clamps to, so that
/// their values may be far from any level, or with weights that no minimum reaches. Groups of zeros do not count, nor
/// those of equal weights where the format has minima. scales [rows, groups], rounded.
int64_t count_clamped(const float* w, const float* scales, int64_t rows, int64_t cols, const QuantFormat& format);

struct ClampedScales {
  std::string module;
  int64_t clamped = 0, scales = 0;
};
/// One warning that names those of which scales were clamped; none, no warning.
void warn_about_clamped_scales(const std::vector<ClampedScales>& linears);

/// Scales of the groups of `w` [rows, cols] by GridDefinition::find_scale; importance [cols] or null. The codes are
/// left empty. group_size must divide cols. UserError where the grid lacks bits, symmetry or first scales.
QuantizedTensor find_scales(const float* w, int64_t rows, int64_t cols, const QuantFormat& format, ScaleInit init,
                            const float* importance = nullptr);
/// Fills the codes with those of the levels next to `w` [rows, cols].
void set_nearest_codes(const float* w, QuantizedTensor& tensor);
/// Both: round-to-nearest.
QuantizedTensor round_to_nearest(const float* w, int64_t rows, int64_t cols, const QuantFormat& format, ScaleInit init,
                                 const float* importance = nullptr);

}  // namespace crumb::quant
