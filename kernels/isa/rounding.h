// Activations rounded for products (kernels/rounding.h) on vectors; included by the files of the instruction sets.
#pragma once

#include "kernels/isa/vector.h"

namespace crumb::kernels {
namespace {

/// The lowest byte of every lane.
inline void store_bytes(int8_t* p, VecInt v, int64_t count) {
#if defined(__AVX512F__) && CRUMB_LANES == 16
  const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xFFFF, __builtin_bit_cast(__m512i, v));
#else
  const VecByte bytes = __builtin_convertvector(v, VecByte);
#endif
  __builtin_memcpy(p, &bytes, static_cast<unsigned long>(count));
}

inline float round_values_to_int8(const float* x, int64_t n, int8_t* codes) {
  constexpr int32_t kInfinity = 0x7F800000;
  constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer, which then stands in the low bits
  VecInt most{};                       // magnitudes in the order of their bits, in which NaN comes last
  for_each_vector(n, [&](int64_t i, int64_t count) {
    const VecInt magnitude = __builtin_bit_cast(VecInt, load(x + i, count, 0)) & 0x7FFFFFFF;
    most = magnitude > most ? magnitude : most;
  });
  int32_t largest = 0;
  for (int64_t i = 0; i < kLanes; ++i) largest = most[i] > largest ? most[i] : largest;
  const float scale = largest < kInfinity ? __builtin_bit_cast(float, largest) / 127.0f : __builtin_nanf("");
  if (!(scale > 0)) {
    for (int64_t i = 0; i < n; ++i) codes[i] = 0;
    return scale;
  }
  for_each_vector(n, [&](int64_t i, int64_t count) {
    Vec q = load(x + i, count, 0) / scale;
    q = q > 127.0f ? broadcast(127) : q;  // beyond it are quotients by a scale that is no normal float
    q = q < -128.0f ? broadcast(-128) : q;
    store_bytes(codes + i, __builtin_bit_cast(VecInt, q + kMagic), count);
  });
  return scale;
}

inline void round_values_to_bf16(const float* x, int64_t n, Bf16* y) {
  for_each_vector(n, [&](int64_t i, int64_t count) { store(y + i, load(x + i, count, 0), count); });
}

}  // namespace
}  // namespace crumb::kernels
