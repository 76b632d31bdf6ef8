// Whether numbers are finite, many at a time.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

namespace crumb {

/// By the bits of magnitudes, whose maximum compilers make of vectors.
inline bool are_finite(std::span<const float> values) {
  constexpr uint32_t kInfinity = 0x7f800000;  // above it are the bits of NaN
  uint32_t largest = 0;
  for (const float x : values) largest = std::max(largest, std::bit_cast<uint32_t>(x) & 0x7fffffff);
  return largest < kInfinity;
}

}  // namespace crumb
