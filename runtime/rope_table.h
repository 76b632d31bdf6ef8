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
  /// Rotates one head in place: pairs (x[i], x[i + dim/2]) by the angles of `position`.
  void rotate(float* head, int64_t position) const;

 private:
  int64_t half_;
  std::vector<float> frequencies_;  // [half]
  std::vector<float> cos_, sin_;    // [positions, half]
};

}  // namespace crumb::runtime
