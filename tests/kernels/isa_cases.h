// What the tests of the kernels share: every instruction set of this machine, random values, and the double-precision
// reference beside them.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "core/common/rng.h"
#include "kernels/bf16.h"
#include "kernels/cpu_features.h"

namespace crumb::testing {

inline std::vector<kernels::Isa> isas() {
  const auto available = kernels::available_isas();
  return {available.begin(), available.end()};
}
inline std::string isa_label(const ::testing::TestParamInfo<kernels::Isa>& info) {
  return std::string(kernels::isa_name(info.param));
}

inline std::vector<float> normal_values(int64_t count, uint64_t stream, double sigma = 1.0) {
  const Rng rng(11, stream);
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(sigma * rng.normal(i));
  return values;
}

inline double value_of(float x) { return x; }
inline double value_of(kernels::Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

/// Half of the distance between neighbouring numbers of T near x.
inline double half_ulp(float /*type*/, double x) { return std::abs(x) * 0x1.0p-24 + 1e-45; }
inline double half_ulp(kernels::Bf16 /*type*/, double x) { return std::abs(x) * 0x1.0p-8 + 1e-40; }

inline std::vector<float> converted(const std::vector<float>& values, float /*type*/) { return values; }
inline std::vector<kernels::Bf16> converted(const std::vector<float>& values, kernels::Bf16 /*type*/) {
  std::vector<kernels::Bf16> out;
  for (const float x : values) out.push_back({static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16)});
  return out;
}

}  // namespace crumb::testing
