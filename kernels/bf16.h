// A bfloat16 as kernels store it.
#pragma once

#include <cstdint>

namespace crumb::kernels {

struct Bf16 {
  uint16_t bits;
};

}  // namespace crumb::kernels
