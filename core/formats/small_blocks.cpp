// Decoders of the types with blocks of 32 or 64 weights that are only read.
#include <bit>
#include <cmath>

#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"
#include "core/formats/iq_grids.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 32, kHalf = kWeights / 2;

// Nibbles with a fifth bit, 0..31.
template <class Value>
void decode_five_bits(const uint8_t* qs, const uint8_t* qh, float* out, const Value& value) {
  uint32_t high;
  std::memcpy(&high, qh, sizeof high);
  for (uint32_t j = 0; j < kHalf; ++j) {
    out[j] = value(static_cast<int>((qs[j] & 15u) | (high >> j & 1) << 4));
    out[j + kHalf] = value(static_cast<int>(qs[j] >> 4 | (high >> (j + kHalf) & 1) << 4));
  }
}

// The numbers of E2M1, doubled. Source: OCP Microscaling Formats (MX) 1.0.
constexpr std::array<int8_t, 16> kE2M1 = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Half of 2^(e - 127), a subnormal at 0 and 1. Every byte is finite.
float half_of_e8m0(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23);
}

// Half of an E4M3 number whose sign does not count; 0x7f is zero here.
float half_of_ue4m3(uint8_t bits) {
  if (bits == 0x7f) return 0;
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  return exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -10)
                       : std::ldexp(static_cast<float>(8 + mantissa), exponent - 11);
}

}  // namespace

void decode_q4_1(const uint8_t* data, int64_t count, float* out) {
  for_each_block<BlockQ4_1, kWeights>(data, count, out, [](const BlockQ4_1& block, float* to) {
    const float d = from_f16(block.d), m = from_f16(block.m);
    for (int j = 0; j < kHalf; ++j) {
      to[j] = d * static_cast<float>(block.qs[j] & 15) + m;
      to[j + kHalf] = d * static_cast<float>(block.qs[j] >> 4) + m;
    }
  });
}

void decode_q5_0(const uint8_t* data, int64_t count, float* out) {
  for_each_block<BlockQ5_0, kWeights>(data, count, out, [](const BlockQ5_0& block, float* to) {
    const float d = from_f16(block.d);
    decode_five_bits(block.qs, block.qh, to, [d](int q) { return d * static_cast<float>(q - 16); });
  });
}

void decode_q5_1(const uint8_t* data, int64_t count, float* out) {
  for_each_block<BlockQ5_1, kWeights>(data, count, out, [](const BlockQ5_1& block, float* to) {
    const float d = from_f16(block.d), m = from_f16(block.m);
    decode_five_bits(block.qs, block.qh, to, [d, m](int q) { return d * static_cast<float>(q) + m; });
  });
}

void decode_iq4_nl(const uint8_t* data, int64_t count, float* out) {
  for_each_block<BlockIQ4_NL, kWeights>(data, count, out, [](const BlockIQ4_NL& block, float* to) {
    decode_nibbles<kHalf>(block.qs, scaled(kIq4Values, from_f16(block.d)), to);
  });
}

void decode_mxfp4(const uint8_t* data, int64_t count, float* out) {
  for_each_block<BlockMXFP4, kWeights>(data, count, out, [](const BlockMXFP4& block, float* to) {
    decode_nibbles<kHalf>(block.qs, scaled(kE2M1, half_of_e8m0(block.e)), to);
  });
}

void decode_nvfp4(const uint8_t* data, int64_t count, float* out) {
  for_each_block<BlockNVFP4, 64>(data, count, out, [](const BlockNVFP4& block, float* to) {
    for (int sub = 0; sub < 4; ++sub, to += 16) {
      decode_nibbles<8>(block.qs + 8 * sub, scaled(kE2M1, half_of_ue4m3(block.scales[sub])), to);
    }
  });
}

}  // namespace crumb::formats
