// One group of weights that share a scale, on each instruction set; seq.cpp walks the rows and groups.
//
// All paths sum alike, so that their bits agree: weight i belongs to lane i % 8, a lane adds by fused multiply-add in
// float, every kSumBlock weights the lanes join a double as ((0+4)+(1+5)) + ((2+6)+(3+7)).
#pragma once

#include <cstdint>

#include "kernels/seq.h"

namespace crumb::kernels {

inline constexpr int64_t kSumBlock = 1024;

struct SeqGroup {
  const float* w;  // [n]
  float s;         // rounded
  int64_t n;
};

namespace portable {
/// y [n] or null, codes [n] or null.
void seq_forward(const SeqGroup& group, float* y, uint8_t* codes);
/// Returns the gradient by ln s.
float seq_backward(const SeqGroup& group, const float* grad_y, OutsideGradient outside, float* grad_w);
}  // namespace portable

}  // namespace crumb::kernels
