// The scales that kernels::round_scale gives, in order. They are the floats whose low 18 bits are zero, so bits >> 18
// numbers them, 32 an octave.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/seq.h"

namespace crumb::quant {

inline constexpr int kScaleShift = 18;
inline constexpr int kScalesAnOctave = 1 << (23 - kScaleShift);

inline float scale_of_number(int number) { return std::bit_cast<float>(static_cast<uint32_t>(number) << kScaleShift); }
/// Of the largest one that is not above x > 0.
inline int scale_number_below(float x) { return static_cast<int>(std::bit_cast<uint32_t>(x) >> kScaleShift); }
/// Of the smallest one that is not below x > 0.
inline int scale_number_above(float x) {
  return static_cast<int>((std::bit_cast<uint32_t>(x) + (1u << kScaleShift) - 1) >> kScaleShift);
}

inline constexpr int kLeastScaleNumber = static_cast<int>(std::bit_cast<uint32_t>(kernels::kMinScale) >> kScaleShift);
inline constexpr int kMostScaleNumber = static_cast<int>(std::bit_cast<uint32_t>(kernels::kMaxScale) >> kScaleShift);

}  // namespace crumb::quant
