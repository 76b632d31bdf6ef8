// The SEQ grid ("stretched elastic quantization", ParetoQ, arXiv:2502.02631): the one definition every part of Crumb
// uses.
//
//   level of code c in 0..3:  (c - 1.5) * s         code of w:  [w > -s] + [w >= 0] + [w > s]
//
// s is always rounded to 6 significant bits and clamped to [2^-17, 2^14] (round_scale), so that s, s/2 and 1.5 s are
// exact in fp16 and bf16. The paper and its code speak of alpha = 2 s. Gradient of y = level by w: 1 for |w| <= 1.98 s,
// else 0 (OutsideGradient::zero) or 1 (ste). By ln s: level * s_level - w inside the range (that is y - w), y outside,
// summed over the weights that share s. Departures from ParetoQ's released code: its 1/sqrt(numel) factor is left out,
// the trained parameter is ln s, and the rounded s is what the thresholds use.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/common/executor.h"
#include "kernels/cpu_features.h"

namespace crumb::kernels {

inline constexpr float kSeqRange = 1.98f;  // in units of s
inline constexpr float kMinScale = 0x1.0p-17f, kMaxScale = 0x1.0p14f;

/// Nearest float with 6 significant bits (ties away from zero), clamped to [2^-17, 2^14]. Every grid's scales are
/// rounded like this.
constexpr float round_scale(float s) {
  if (!(s > kMinScale)) return kMinScale;  // also NaN
  if (s >= kMaxScale) return kMaxScale;
  const auto bits =
      std::bit_cast<uint32_t>(s) + (1u << 17);  // 23 - 5 = 18 mantissa bits go; half of the last kept one is added
  return std::bit_cast<float>(bits & ~((1u << 18) - 1));
}

/// s is rounded already, here and below.
constexpr float seq_level(int code, float s) { return (static_cast<float>(code) - 1.5f) * s; }

/// The code of w, a float or a vector of them as the compiler has them (__m256); of a vector as integers in its lanes.
template <class V>
[[gnu::always_inline]] constexpr auto seq_code(V w, V s) {
  if constexpr (std::is_same_v<V, float>)
    return static_cast<int>(w > -s) + static_cast<int>(w >= 0.0f) + static_cast<int>(w > s);
  else
    return -((w > -s) + (w >= 0.0f) + (w > s));  // a comparison that holds is -1
}

/// The level of the code of w; NaN stays NaN. Without a detour by the code, so that vectors need no table.
template <class V>
[[gnu::always_inline]] constexpr V seq_nearest_level(V w, V s) {
  const V inner = seq_level(2, 1.0f) * s, outer = seq_level(3, 1.0f) * s;
  const V above = w > s ? outer : inner, below = w > -s ? -inner : -outer;
  const V level = w >= 0.0f ? above : below;
  return w == w ? level : w;
}

enum class OutsideGradient { zero, ste };

/// y[r, c] = level of the code of w[r, c], s = round_scale(scale[r, c / group_size]).
/// w, y [rows, cols] contiguous; scale [rows, cols / group_size], > 0; group_size divides cols. codes (may be null)
/// [rows, cols]; y may be null when codes is not. A NaN weight stays NaN in y, so that a broken run shows; its code is
/// 0. Every instruction set gives the same bits as reference::.
void seq_forward(const float* w, const float* scale, int64_t rows, int64_t cols, int64_t group_size, float* y,
                 uint8_t* codes, Executor& executor, Isa isa = best_isa());

/// grad_w [rows, cols] and grad_log_scale [rows, groups] from grad_y; grad_w may alias grad_y. The sum over a group is
/// made in a fixed order (eight float lanes over blocks of 1024, joined in double), the same on every instruction set
/// and for any number of threads.
void seq_backward(const float* w, const float* scale, const float* grad_y, int64_t rows, int64_t cols,
                  int64_t group_size, OutsideGradient outside, float* grad_w, float* grad_log_scale, Executor& executor,
                  Isa isa = best_isa());

namespace reference {  // a definition of its own, in double: the oracle
void seq_forward(const float* w, const float* scale, int64_t rows, int64_t cols, int64_t group_size, float* y,
                 uint8_t* codes);
void seq_backward(const float* w, const float* scale, const float* grad_y, int64_t rows, int64_t cols,
                  int64_t group_size, OutsideGradient outside, float* grad_w, float* grad_log_scale);
}  // namespace reference

}  // namespace crumb::kernels
