// Element types of safetensors files, and their conversions.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/common/half.h"  // of F16

namespace crumb::formats {

enum class DType { boolean, u8, i8, f8_e5m2, f8_e4m3, i16, u16, f16, bf16, i32, u32, f32, i64, u64, f64 };

int64_t dtype_bytes(DType dtype);
/// "BF16", as safetensors spells it.
std::string_view dtype_name(DType dtype);
std::optional<DType> dtype_from_name(std::string_view name);

/// bfloat16 is the upper half of a float; to_bf16 rounds to nearest even and keeps NaN a NaN.
inline float from_bf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
inline uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline float round_to_bf16(float value) { return from_bf16(to_bf16(value)); }

/// Converts `count` elements of a float type (F16, BF16, F32, F64, F8_*) to float. Throws UserError for integer types.
void to_float(DType dtype, const void* data, int64_t count, float* out);
/// The inverse, rounding to nearest even; F16, BF16, F32, F64 only.
void from_float(DType dtype, const float* data, int64_t count, void* out);

}  // namespace crumb::formats
