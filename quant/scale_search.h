// First scales of a row or group, and round-to-nearest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quant/quantized_tensor.h"

namespace crumb::quant {

enum class ScaleInit { absmax, absmean, mse };
ScaleInit scale_init_from_name(const std::string& name);

/// SEQ. absmax: max|w| / 2. absmean: 1.25 mean|w|. mse: of all representable scales (6 significant bits, 32 an octave)
/// in the 8 octaves below max|w|, the one with the least sum (w - level)^2. All rounded by kernels::round_scale. A row
/// of zeros gets the smallest scale.
float seq_scale(const float* w, int64_t n, ScaleInit init);

struct IntScale {
  float scale;
  int32_t zero_point;
};
/// Integers. Symmetric: codes 0..2^bits-1 around 2^(bits-1), absmax: scale = max|w| / (2^(bits-1) - 1). Asymmetric:
/// [min(w, 0), max(w, 0)] on the whole range. mse: the best of 80 shrunk ranges down to 20 %. absmean is refused with
/// UserError.
IntScale int_scale(const float* w, int64_t n, int bits, bool symmetric, ScaleInit init);

/// Groups of w [rows, cols] whose scale stands at an end of the range that kernels::round_scale clamps to, so that
/// their values may be far from any level. Groups of zeros do not count. scales [rows, groups], rounded.
int64_t count_clamped(const float* w, const float* scales, int64_t rows, int64_t cols, int64_t group_cols);

struct ClampedScales {
  std::string module;
  int64_t clamped = 0, scales = 0;
};
/// One warning that names those of which scales were clamped; none, no warning.
void warn_about_clamped_scales(const std::vector<ClampedScales>& linears);

/// Round-to-nearest of rows [rows, cols]; group_size must divide cols.
QuantizedTensor round_to_nearest(const float* w, int64_t rows, int64_t cols, const QuantFormat& format, ScaleInit init);

}  // namespace crumb::quant
