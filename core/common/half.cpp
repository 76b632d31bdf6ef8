#include "core/common/half.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include <bit>

namespace crumb {

#if defined(__F16C__)
float from_f16(uint16_t bits) { return _cvtsh_ss(bits); }
uint16_t to_f16(float value) { return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT); }
#else
float from_f16(uint16_t bits) { return portable_from_f16(bits); }
uint16_t to_f16(float value) { return portable_to_f16(value); }
#endif

float portable_from_f16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, magnitude = bits & 0x7fff;
  uint32_t result = (magnitude << 13) + (112u << 23);  // the exponent's bias is 15 there, 127 here
  if (magnitude > 0x7c00) result = magnitude << 13 | 0x7fc00000;
  if (magnitude == 0x7c00) result = 0x7f800000;
  if (magnitude < 0x0400) result = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);  // subnormal
  return std::bit_cast<float>(sign | result);
}

uint16_t portable_to_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  uint32_t result = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
  if (magnitude > 0x7f800000)
    result = 0x7e00 | (magnitude >> 13 & 0x03ff);
  else if (magnitude >= std::bit_cast<uint32_t>(65520.0f))  // half way from the largest number to the next power of two
    result = 0x7c00;
  else if (magnitude < std::bit_cast<uint32_t>(0x1p-14f))  // subnormal, in steps of 2^-24: those of floats at 0.5
    result = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
  return static_cast<uint16_t>(sign | result);
}

}  // namespace crumb
