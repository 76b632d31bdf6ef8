// Vectors of CRUMB_LANES floats (8 or 16) through the compiler's vector types; 16-bit data is widened on loading,
// bfloat16 rounded to nearest even on storing.
//
// Files of different instruction sets include this, so everything is in an anonymous namespace: an inline function that
// two object files share is kept once by the linker, and the copy kept may need what this machine lacks. For the same
// reason nothing of the standard library but types and constants is used here and in the files beside it.
#pragma once

#include <cstdint>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "core/common/half.h"
#include "kernels/bf16.h"

#ifndef CRUMB_LANES
#define CRUMB_LANES 8
#endif

namespace crumb::kernels {
namespace {

constexpr int64_t kLanes = CRUMB_LANES;
constexpr int64_t kPrefetchBytes = 6144;  // ahead of weights that one token reads: 4 to 8 KB give most of the bandwidth

using Vec = float __attribute__((vector_size(4 * CRUMB_LANES)));
using VecInt = int32_t __attribute__((vector_size(4 * CRUMB_LANES)));
using VecShort = uint16_t __attribute__((vector_size(2 * CRUMB_LANES)));
using VecByte = int8_t __attribute__((vector_size(CRUMB_LANES)));
// Half as many lanes, twice as wide.
using VecHalf = float __attribute__((vector_size(2 * CRUMB_LANES)));
using VecDouble = double __attribute__((vector_size(4 * CRUMB_LANES)));
using VecLong = int64_t __attribute__((vector_size(4 * CRUMB_LANES)));

inline int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }

#if CRUMB_LANES == 16
inline Vec broadcast(float x) { return Vec{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
#else
inline Vec broadcast(float x) { return Vec{x, x, x, x, x, x, x, x}; }
#endif

inline Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
inline Vec load(const Bf16* p) {
  // Intrinsics, because GCC 12 makes eight instructions of a conversion of 16 lanes.
#if defined(__AVX512F__) && CRUMB_LANES == 16
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return __builtin_bit_cast(Vec, _mm512_maskz_slli_epi32(0xFFFF, _mm512_maskz_cvtepu16_epi32(0xFFFF, bits), 16));
#elif defined(__AVX2__) && CRUMB_LANES == 8
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return __builtin_bit_cast(Vec, _mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
#else
  VecShort v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_bit_cast(Vec, __builtin_convertvector(v, VecInt) << 16);
#endif
}
inline Vec load(const Half* p) {
#if defined(__F16C__) && CRUMB_LANES == 16
  // By mask: without one GCC 12 warns of its own uninitialised register.
  return __builtin_bit_cast(Vec,
                            _mm512_maskz_cvtph_ps(0xFFFF, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
  return __builtin_bit_cast(Vec, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__aarch64__)
  __fp16 __attribute__((vector_size(2 * CRUMB_LANES))) v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, Vec);
#else
  Vec v{};
  for (int64_t i = 0; i < kLanes; ++i) v[i] = from_f16(p[i].bits);
  return v;
#endif
}

inline Vec load(const int8_t* p) {
#if defined(__AVX512F__) && CRUMB_LANES == 16
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_maskz_cvtepi8_epi32(0xFFFF, bytes));
#elif defined(__AVX2__) && CRUMB_LANES == 8
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  VecByte v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(__builtin_convertvector(v, VecInt), Vec);
#endif
}

inline void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }
inline void store(Bf16* p, Vec v) {
  const auto bits = __builtin_bit_cast(VecInt, v);
  const VecInt rounded = bits + 0x7FFF + ((bits >> 16) & 1);  // to nearest, ties to even
  const VecInt nan = bits | 0x400000;                         // rounding could carry a NaN into an infinity
  const VecShort out = __builtin_convertvector(((v == v) ? rounded : nan) >> 16, VecShort);
  __builtin_memcpy(p, &out, sizeof out);
}

inline void store(Half* p, Vec v) {
#if defined(__F16C__) && CRUMB_LANES == 16
  const __m256i out = _mm512_maskz_cvtps_ph(0xFFFF, v, _MM_FROUND_TO_NEAREST_INT);
  __builtin_memcpy(p, &out, sizeof out);
#elif defined(__F16C__)
  const __m128i out = _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
  __builtin_memcpy(p, &out, sizeof out);
#else
  for (int64_t i = 0; i < kLanes; ++i) p[i].bits = to_f16(v[i]);
#endif
}

/// The first `count` < kLanes values, `fill` in the other lanes.
template <class T>
inline Vec load_first(const T* p, int64_t count, float fill) {
  T padded[kLanes] = {};
  for (int64_t i = 0; i < kLanes && i < count; ++i) padded[i] = p[i];
  Vec v = load(padded);
  for (int64_t i = count; i < kLanes; ++i) v[i] = fill;
  return v;
}
template <class T>
inline void store_first(T* p, Vec v, int64_t count) {
  T padded[kLanes];
  store(padded, v);
  for (int64_t i = 0; i < kLanes && i < count; ++i) p[i] = padded[i];
}

/// As above for any count up to kLanes; full vectors take the direct way.
template <class T>
inline Vec load(const T* p, int64_t count, float fill) {
  return count == kLanes ? load(p) : load_first(p, count, fill);
}
template <class T>
inline void store(T* p, Vec v, int64_t count) {
  if (count == kLanes)
    store(p, v);
  else
    store_first(p, v, count);
}

/// body(i, count) for i = 0, kLanes, 2 kLanes ... below n; count is kLanes but for a shorter last piece.
template <class Body>
inline void for_each_vector(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
  if (i < n) body(i, n - i);
}

/// a * b + c, rounded once.
inline Vec fused(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__) && CRUMB_LANES == 16
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__) && CRUMB_LANES == 8
  return _mm256_fmadd_ps(a, b, c);
#else
  for (int64_t i = 0; i < kLanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#endif
}

inline Vec max(Vec a, Vec b) { return a < b ? b : a; }

inline float largest_of(Vec v) {
  float best = v[0];
  for (int64_t i = 1; i < kLanes; ++i) best = v[i] > best ? v[i] : best;
  return best;
}

/// In a fixed order, so that a row's sum does not depend on where it is computed.
inline float sum(Vec v) {
  float lane[kLanes];
  store(lane, v);
  for (int64_t half = kLanes / 2; half >= 4; half /= 2) {
    for (int64_t i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}
inline double sum(VecDouble v) {
  double total = 0;
  for (int64_t i = 0; i < kLanes / 2; ++i) total += v[i];
  return total;
}

/// M rows `stride` apart. Every third has a pointer: an address reaches two more without arithmetic.
template <int M, class T>
struct TileRows {
  const T* thirds[(M + 2) / 3];
  int64_t stride;

  TileRows(const T* first, int64_t stride_) : stride(stride_) {
#pragma GCC unroll 6
    for (int i = 0; i < (M + 2) / 3; ++i) thirds[i] = first + 3 * i * stride_;
  }
  const T* at(int m, int64_t k) const { return thirds[m / 3] + (m % 3 * stride + k); }
};

/// x = x * factor
inline void scale_row(float* x, int64_t n, float factor) {
  for_each_vector(n, [&](int64_t i, int64_t count) { store(x + i, load(x + i, count, 0) * factor, count); });
}

/// e^x within one unit in the last place for x in [-87, 88], clamped to that range; NaN stays NaN. Cephes' expf: x =
/// n ln 2 + r, a polynomial of degree 7 in r, the exponent n added to the bits.
inline Vec exp(Vec x) {
  constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer, which then stands in the low bits
  x = x < -87.0f ? broadcast(-87.0f) : x;
  x = x > 88.0f ? broadcast(88.0f) : x;
  const Vec shifted = x * 1.44269504088896341f + kMagic;
  const Vec n = shifted - kMagic;
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Vec e = (p * (r * r) + r) + 1.0f;
  const VecInt exponent =
      __builtin_bit_cast(VecInt, shifted) - (0x4B400000 - 127);  // the magic number's own bits, and the bias
  return e * __builtin_bit_cast(Vec, exponent << 23);
}

/// ln x within two units in the last place for normal x > 0, exactly 0 at 1; NaN stays NaN. Cephes' logf: x = 2^n (1 +
/// f) with 1 + f between sqrt(1/2) and sqrt(2), a polynomial of degree 9 in f.
inline Vec log(Vec x) {
  constexpr int32_t kRootOfHalf = 0x3F3504F3;  // its bits
  const VecInt offset = __builtin_bit_cast(VecInt, x) - kRootOfHalf;
  const Vec n = __builtin_convertvector(offset >> 23, Vec);
  const Vec f = __builtin_bit_cast(Vec, (offset & 0x7FFFFF) + kRootOfHalf) - 1.0f;
  Vec p = f * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const Vec square = f * f, tail = p * f * square - n * 2.12194440e-4f - square * 0.5f;
  return x == x ? (f + tail) + n * 0.693359375f : x;
}

/// e^x in double precision for x <= 0, within 2 units in the last place; 0 below -708; NaN stays NaN. Taylor's series
/// to degree 13 around multiples of ln 2, which it needs within ln 2 / 2: its error there is 5e-18.
inline VecDouble exp_double(VecDouble x) {
  constexpr double kMagic = 0x1.8p52;
  const VecDouble zero = {}, low = zero - 708.0;
  const VecDouble clamped = x < low ? low : x;
  const VecDouble shifted = clamped * 1.4426950408889634074 + kMagic;
  const VecDouble n = shifted - kMagic;
  const VecDouble r = (clamped - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;  // ln 2 in two parts
  constexpr double kInverseFactorials[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1.0,         1.0};
  VecDouble p = zero + kInverseFactorials[0];
  for (int i = 1; i < 14; ++i) p = p * r + kInverseFactorials[i];
  const VecLong exponent = (__builtin_bit_cast(VecLong, shifted) - __builtin_bit_cast(int64_t, kMagic) + 1023) << 52;
  const VecDouble e = p * __builtin_bit_cast(VecDouble, exponent);
  return x < low ? zero : e;
}

}  // namespace
}  // namespace crumb::kernels
