// Types of PTX as C++ types, and their arithmetic where C++ has none: f16, bf16, pairs of them.
#pragma once

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace crumb::ptx {

// clang-format off
enum class Type : uint8_t {
  none, pred, u8, u16, u32, u64, s8, s16, s32, s64, b8, b16, b32, b64, f16, bf16, f16x2, bf16x2, f32, f64, tf32, u4, s4
};
// clang-format on
enum class Rounding : uint8_t { nearest, zero, down, up };  // rn, rz, rm, rp

struct Half {
  static constexpr int kMantissa = 10, kBias = 15;
  uint16_t bits;
};
struct Bfloat {
  static constexpr int kMantissa = 7, kBias = 127;
  uint16_t bits;
};
template <class T>
struct Pair {
  T low, high;
};

template <class T>
inline constexpr bool kIsSmall = std::is_same_v<T, Half> || std::is_same_v<T, Bfloat>;
template <class T>
inline constexpr bool kIsFloat = std::is_floating_point_v<T> || kIsSmall<T>;

// --- a lane of a register: 32 or 64 bits, narrower types in its low bits below zeros --------------------------------

template <class T>
using Slot = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
T from_slot(Slot<T> slot) {
  if constexpr (sizeof(T) == sizeof(Slot<T>))
    return std::bit_cast<T>(slot);
  else if constexpr (sizeof(T) == 2)
    return std::bit_cast<T>(static_cast<uint16_t>(slot));
  else
    return std::bit_cast<T>(static_cast<uint8_t>(slot));
}
template <class T>
Slot<T> to_slot(T value) {
  if constexpr (sizeof(T) == sizeof(Slot<T>))
    return std::bit_cast<Slot<T>>(value);
  else if constexpr (sizeof(T) == 2)
    return std::bit_cast<uint16_t>(value);
  else
    return std::bit_cast<uint8_t>(value);
}

// --- rounding -------------------------------------------------------------------------------------------------------

/// Of float and double within its life. The values read and written in between must be kept by keep().
class RoundingScope {
 public:
  explicit RoundingScope(Rounding rounding) : changed_(rounding != Rounding::nearest) {
    constexpr int kModes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    if (changed_) std::fesetround(kModes[static_cast<int>(rounding)]);
  }
  ~RoundingScope() {
    if (changed_) std::fesetround(FE_TONEAREST);
  }

 private:
  bool changed_;
};
/// The compiler moves no computation with what stands at this address across it.
inline void keep(void* address) { asm volatile("" : : "r"(address) : "memory"); }

inline double round_to_integer(double x, Rounding rounding) {
  switch (rounding) {
    case Rounding::zero:
      return std::trunc(x);
    case Rounding::down:
      return std::floor(x);
    case Rounding::up:
      return std::ceil(x);
    default:
      return std::nearbyint(x);
  }
}

template <class T>
double widen(T x) {
  if constexpr (std::is_same_v<T, Bfloat>) {
    return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
  } else if constexpr (std::is_same_v<T, Half>) {
    const int exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
    double size = exponent == 0 ? mantissa * 0x1p-24
                                : (1024 + mantissa) * std::bit_cast<double>(uint64_t(exponent - 25 + 1023) << 52);
    if (exponent == 31)
      size = mantissa == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
    return x.bits >> 15 ? -size : size;
  } else {
    return static_cast<double>(x);
  }
}

/// Rounds once. A NaN becomes the canonical one.
template <class T>
T narrow(double x, Rounding rounding) {
  constexpr int kInfinity = 2 * T::kBias + 1;  // as an exponent's code
  if (std::isnan(x)) return {0x7fff};
  const bool negative = std::signbit(x);
  const auto with_sign = [&](int code) { return T{static_cast<uint16_t>(code | (negative ? 0x8000 : 0))}; };
  if (negative && rounding == Rounding::down)
    rounding = Rounding::up;
  else if (negative && rounding == Rounding::up)
    rounding = Rounding::down;
  const bool may_grow = rounding != Rounding::zero && rounding != Rounding::down;
  const double size = std::fabs(x);
  if (std::isinf(size)) return with_sign(kInfinity << T::kMantissa);
  int exponent = static_cast<int>(std::bit_cast<uint64_t>(size) >> 52) - 1023;
  if (exponent > T::kBias) return with_sign((kInfinity << T::kMantissa) - (may_grow ? 0 : 1));
  exponent = std::max(exponent, 1 - T::kBias);
  // In units of the last place; the leading 1 adds one to the exponent's code, as does a carry.
  const double units = size * std::bit_cast<double>(static_cast<uint64_t>(1023 - exponent + T::kMantissa) << 52);
  const int code = static_cast<int>(round_to_integer(units, rounding)) + ((exponent + T::kBias - 1) << T::kMantissa);
  return with_sign(code >= kInfinity << T::kMantissa && !may_grow ? (kInfinity << T::kMantissa) - 1 : code);
}

/// Small floats in a computation: one operation on these, then narrow(), rounds as if the operation were exact.
/// Products are; a sum is rounded to odd, after which a second rounding to fewer bits is right.
struct Exact {
  double value;
};
inline Exact sum_to_odd(double a, double b) {
  const double sum = a + b, b_kept = sum - a, lost = (a - (sum - b_kept)) + (b - b_kept);
  const uint64_t bits = std::bit_cast<uint64_t>(sum);
  if (lost == 0 || !std::isfinite(sum) || (bits & 1) != 0) return {sum};
  return {std::bit_cast<double>((lost > 0) == (sum > 0) ? bits + 1 : bits - 1)};
}
inline Exact operator+(Exact a, Exact b) { return sum_to_odd(a.value, b.value); }
inline Exact operator-(Exact a, Exact b) { return sum_to_odd(a.value, -b.value); }
inline Exact operator*(Exact a, Exact b) { return {a.value * b.value}; }
inline Exact fused(Exact a, Exact b, Exact c) { return sum_to_odd(a.value * b.value, c.value); }
inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
inline double fused(double a, double b, double c) { return std::fma(a, b, c); }

inline constexpr uint32_t kNan32 = 0x7fffffff;

inline float flush(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits & 0x7f800000) == 0 ? bits & 0x80000000 : bits);
}

}  // namespace crumb::ptx
