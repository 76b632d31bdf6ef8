// A bfloat16 as kernels store it.
#pragma once

#include <bit>
#include <cstdint>

namespace crumb::kernels {

struct Bf16 {
  uint16_t bits;
};

constexpr float widened(Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

}  // namespace crumb::kernels
