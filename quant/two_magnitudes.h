// Scale search for grids of which a weight is one of two magnitudes: SEQ (0.5 and 1.5) and ternary (0 and 1).
#pragma once

#include <cstdint>

namespace crumb::quant {

/// Levels -outer, -inner, inner, outer at scale 1. Weights change from one to the other halfway, which is a power of
/// two.
struct TwoMagnitudes {
  double inner, outer;
  double threshold() const { return (inner + outer) / 2; }
};

/// Of all representable scales (scale_numbers.h) whose threshold lies in the 9 octaves below max|w|, the one of least
/// sum importance * (|w| - magnitude)^2, exactly; of equal ones the largest. importance [n] or null: all 1. Zeros get
/// the smallest scale.
float least_squares_scale(const float* w, int64_t n, const TwoMagnitudes& levels, const float* importance);

}  // namespace crumb::quant
