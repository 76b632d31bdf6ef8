// Cosines and sines of the rotary embedding, computed once for each position.
#pragma once

#include <cstdint>
#include <vector>

#include "core/arch/decoder_spec.h"

namespace crumb::runtime {

class RopeTable {
 public:
  explicit RopeTable(const arch::RopeSpec& spec);

  /// Makes positions [0, count) available.
  void grow(int64_t count);
  /// Cosines and sines of a position, [half] each: what kernels::rope takes for one token.
  const float* cos(int64_t position) const { return cos_.data() + position * half_; }
  const float* sin(int64_t position) const { return sin_.data() + position * half_; }
  int64_t half() const { return half_; }

 private:
  int64_t half_;
  std::vector<float> frequencies_;  // [half]
  std::vector<float> cos_, sin_;    // [positions, half]
};

}  // namespace crumb::runtime
