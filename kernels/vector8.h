// Eight floats at a time through the compiler's vector types: AVX2 on x86-64-v3, whatever the machine has elsewhere.
// For the element-wise kernels, whose speed is that of memory; bfloat16 data is widened on loading and rounded to
// nearest even on storing.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace crumb::kernels {

struct Bf16 {
  uint16_t bits;
};

using Vec8 = float __attribute__((vector_size(32)));
using VecInt8 = int32_t __attribute__((vector_size(32)));
using VecShort8 = uint16_t __attribute__((vector_size(16)));

inline Vec8 broadcast(float x) { return Vec8{x, x, x, x, x, x, x, x}; }

inline Vec8 load(const float* p) {
  Vec8 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Vec8 load(const Bf16* p) {
  VecShort8 v;
  std::memcpy(&v, p, sizeof v);
  return std::bit_cast<Vec8>(__builtin_convertvector(v, VecInt8) << 16);
}

inline void store(float* p, Vec8 v) { std::memcpy(p, &v, sizeof v); }
inline void store(Bf16* p, Vec8 v) {
  const auto bits = std::bit_cast<VecInt8>(v);
  const VecInt8 rounded = bits + 0x7FFF + ((bits >> 16) & 1);  // to nearest, ties to even
  const VecInt8 nan = bits | 0x400000;                         // rounding could carry a NaN into an infinity
  const VecShort8 out = __builtin_convertvector(((v == v) ? rounded : nan) >> 16, VecShort8);
  std::memcpy(p, &out, sizeof out);
}

/// The first `count` < 8 values, `fill` in the other lanes.
template <class T>
inline Vec8 load_first(const T* p, int64_t count, float fill) {
  T padded[8] = {};
  for (int64_t i = 0; i < 8 && i < count; ++i) padded[i] = p[i];
  Vec8 v = load(padded);
  for (int64_t i = count; i < 8; ++i) v[i] = fill;
  return v;
}
template <class T>
inline void store_first(T* p, Vec8 v, int64_t count) {
  T padded[8];
  store(padded, v);
  for (int64_t i = 0; i < 8 && i < count; ++i) p[i] = padded[i];
}

/// As above for any count up to 8; full vectors take the direct way.
template <class T>
inline Vec8 load(const T* p, int64_t count, float fill) {
  return count == 8 ? load(p) : load_first(p, count, fill);
}
template <class T>
inline void store(T* p, Vec8 v, int64_t count) {
  if (count == 8)
    store(p, v);
  else
    store_first(p, v, count);
}

/// body(i, count) for i = 0, 8, 16 ... below n; count is 8 but for a shorter last piece.
template <class Body>
inline void for_each8(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) body(i, 8);
  if (i < n) body(i, n - i);
}

inline Vec8 max(Vec8 a, Vec8 b) { return a < b ? b : a; }

/// In a fixed order, so that a row's sum does not depend on where it is computed.
inline float sum(Vec8 v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

/// e^x to about one unit in the last place for x in [-87, 88], clamped to that range; NaN stays NaN. Cephes' expf: x =
/// n ln 2 + r, a polynomial of degree 7 in r, the exponent n added to the bits.
inline Vec8 exp(Vec8 x) {
  constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer, which then stands in the low bits
  x = x < -87.0f ? broadcast(-87.0f) : x;
  x = x > 88.0f ? broadcast(88.0f) : x;
  const Vec8 shifted = x * 1.44269504088896341f + kMagic;
  const Vec8 n = shifted - kMagic;
  const Vec8 r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec8 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Vec8 e = (p * (r * r) + r) + 1.0f;
  const VecInt8 exponent =
      std::bit_cast<VecInt8>(shifted) - (0x4B400000 - 127);  // the magic number's own bits, and the bias
  return e * std::bit_cast<Vec8>(exponent << 23);
}

}  // namespace crumb::kernels
