// One SEQ group in AVX2, eight weights at a time on every x86 instruction set: the speed is that of memory, and all sum
// alike (kernels/seq_group.h). Included by the files of the instruction sets.
#pragma once

#include <immintrin.h>

#include "kernels/seq_group.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kSeqLanes = 8;

/// Eight codes in the low bytes.
inline uint64_t codes_of(__m256 w, __m256 s) {
  const auto code = (__m256i)seq_code(w, s);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_packus_epi16(words, words)));
}

/// Sign bits set in the first n lanes.
inline __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline float join(__m256 lanes) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));  // 0+4 1+5 2+6 3+7
  const __m128 two = _mm_add_ps(four, _mm_movehdup_ps(four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehl_ps(two, two)));
}

inline __m256 backward_step(__m256 w, __m256 g, __m256 s, bool zero_outside, __m256 sum, __m256* grad_w) {
  const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), w);
  const __m256 inside = _mm256_cmp_ps(magnitude, kSeqRange * s, _CMP_LE_OQ);
  const __m256 difference = _mm256_sub_ps(seq_nearest_level(w, s), _mm256_and_ps(inside, w));
  *grad_w = zero_outside ? _mm256_and_ps(inside, g) : g;
  return _mm256_fmadd_ps(g, difference, sum);
}

inline void seq_forward_group(const SeqGroup& group, float* y, uint8_t* codes) {
  const auto [w, s, n] = group;
  const __m256 scale = _mm256_set1_ps(s);
  int64_t i = 0;
  for (; i + kSeqLanes <= n; i += kSeqLanes) {
    const __m256 x = _mm256_loadu_ps(w + i);
    if (y != nullptr) _mm256_storeu_ps(y + i, seq_nearest_level(x, scale));
    if (codes != nullptr) {
      const uint64_t eight = codes_of(x, scale);
      __builtin_memcpy(codes + i, &eight, kSeqLanes);
    }
  }
  if (i < n)
    portable::seq_forward({w + i, s, n - i}, y == nullptr ? nullptr : y + i, codes == nullptr ? nullptr : codes + i);
}

inline float seq_backward_group(const SeqGroup& group, const float* grad_y, OutsideGradient outside, float* grad_w) {
  const auto [w, s, n] = group;
  const __m256 scale = _mm256_set1_ps(s);
  const bool zero_outside = outside == OutsideGradient::zero;
  double total = 0;
  for (int64_t block = 0; block < n; block += kSumBlock) {
    const int64_t end = block + kSumBlock < n ? block + kSumBlock : n;
    __m256 sum = _mm256_setzero_ps(), out;
    int64_t i = block;
    for (; i + kSeqLanes <= end; i += kSeqLanes) {
      sum = backward_step(_mm256_loadu_ps(w + i), _mm256_loadu_ps(grad_y + i), scale, zero_outside, sum, &out);
      _mm256_storeu_ps(grad_w + i, out);
    }
    if (i < end) {  // lanes beyond the end hold w = 0 and gradient 0, which add nothing
      const __m256i mask = first_lanes(end - i);
      sum = backward_step(_mm256_maskload_ps(w + i, mask), _mm256_maskload_ps(grad_y + i, mask), scale, zero_outside,
                          sum, &out);
      _mm256_maskstore_ps(grad_w + i, mask, out);
    }
    total += join(sum);
  }
  return static_cast<float>(total);
}

}  // namespace
}  // namespace crumb::kernels
