// The types with blocks of 32 or 64 weights that are only read.
#include <array>
#include <bit>
#include <cmath>

#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"
#include "core/formats/iq_grids.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 32, kHalf = kWeights / 2;

// Nibbles with a fifth bit, less `zero`.
void take_five_bits(const uint8_t* qs, const uint8_t* qh, int zero, int8_t* levels) {
  uint32_t high;
  std::memcpy(&high, qh, sizeof high);
  take_nibbles<kHalf>(qs, zero, levels);
  for (uint32_t j = 0; j < kWeights; ++j) levels[j] = static_cast<int8_t>(levels[j] + ((high >> j & 1) << 4));
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

void take_apart(const BlockQ5_0& block, int8_t* levels, LevelGroup* groups) {
  take_five_bits(block.qs, block.qh, 16, levels);
  *groups = {from_f16(block.d)};
}

void take_apart(const BlockQ5_1& block, int8_t* levels, LevelGroup* groups) {
  take_five_bits(block.qs, block.qh, 0, levels);
  *groups = {from_f16(block.d), from_f16(block.m)};
}

void take_apart(const BlockIQ4_NL& block, int8_t* levels, LevelGroup* groups) {
  take_nibbles<kHalf>(block.qs, kIq4Values, levels);
  *groups = {from_f16(block.d)};
}

void take_apart(const BlockMXFP4& block, int8_t* levels, LevelGroup* groups) {
  take_nibbles<kHalf>(block.qs, kE2M1, levels);
  *groups = {half_of_e8m0(block.e)};
}

void take_apart(const BlockNVFP4& block, int8_t* levels, LevelGroup* groups) {
  for (int sub = 0; sub < 4; ++sub) {
    take_nibbles<8>(block.qs + 8 * sub, kE2M1, levels + 16 * sub);
    groups[sub] = {half_of_ue4m3(block.scales[sub])};
  }
}

}  // namespace

void levels_of_q5_0(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockQ5_0, kWeights, kWeights, take_apart>(data, blocks, levels, groups);
}
void levels_of_q5_1(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockQ5_1, kWeights, kWeights, take_apart>(data, blocks, levels, groups);
}
void levels_of_iq4_nl(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockIQ4_NL, kWeights, kWeights, take_apart>(data, blocks, levels, groups);
}
void levels_of_mxfp4(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockMXFP4, kWeights, kWeights, take_apart>(data, blocks, levels, groups);
}
void levels_of_nvfp4(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockNVFP4, 64, 16, take_apart>(data, blocks, levels, groups);
}

}  // namespace crumb::formats
