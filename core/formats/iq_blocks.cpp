// The IQ types: groups of weights are points of a codebook, or nibbles an uneven scale.
#include <bit>

#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"
#include "core/formats/iq_grids.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 256;

uint32_t load_u32(const uint8_t* bytes) {
  uint32_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// The signs of eight weights, one a bit; only seven are stored, for their number is even.
uint32_t with_eighth_sign(uint32_t seven) { return seven | (static_cast<uint32_t>(std::popcount(seven)) & 1) << 7; }

// The levels of one point, from the lowest bit of `signs`.
template <size_t W>
void take_signed(const std::array<int8_t, W>& point, uint32_t signs, int8_t* levels) {
  for (size_t i = 0; i < W; ++i) levels[i] = static_cast<int8_t>((signs >> i & 1) != 0 ? -point[i] : point[i]);
}

// Eight levels of IQ1, in eighths: the whole point is shifted up or down by one.
void take_shifted(const std::array<int8_t, 8>& point, bool is_down, int8_t* levels) {
  for (size_t i = 0; i < point.size(); ++i) levels[i] = static_cast<int8_t>(8 * point[i] + (is_down ? -1 : 1));
}
constexpr float kEighth = 0.125f;

int nibble(const uint8_t* bytes, int i) { return bytes[i / 2] >> 4 * (i % 2) & 15; }

// d * (0.5 + scale) * unit
LevelGroup group_of(float d, uint32_t scale, float unit) { return {d * (0.5f + static_cast<float>(scale)) * unit}; }

void take_apart(const BlockIQ2_XXS& block, int8_t* levels, LevelGroup* groups) {
  const float d = from_f16(block.d);
  for (const auto& group : block.groups) {  // of 32 weights
    const uint32_t word = load_u32(group.signs_and_scale);
    *groups++ = group_of(d, word >> 28, 0.25f);
    for (int i = 0; i < 4; ++i, levels += 8)
      take_signed(kIq2XxsGrid[group.points[i]], with_eighth_sign(word >> 7 * i & 127), levels);
  }
}

void take_apart(const BlockIQ2_XS& block, int8_t* levels, LevelGroup* groups) {
  const float d = from_f16(block.d);
  for (int sub = 0; sub < 16; ++sub) groups[sub] = group_of(d, static_cast<uint32_t>(nibble(block.scales, sub)), 0.25f);
  for (const uint16_t q : block.qs) {
    take_signed(kIq2XsGrid[q & 511], with_eighth_sign(q >> 9), levels);
    levels += 8;
  }
}

void take_apart(const BlockIQ2_S& block, int8_t* levels, LevelGroup* groups) {
  const float d = from_f16(block.d);
  for (int sub = 0; sub < 16; ++sub) groups[sub] = group_of(d, static_cast<uint32_t>(nibble(block.scales, sub)), 0.25f);
  for (int i = 0; i < 32; ++i, levels += 8) {
    const uint32_t point = block.qs[i] | (block.qh[i / 4] >> 2 * (i % 4) & 3u) << 8;
    take_signed(kIq2SGrid[point], block.signs[i], levels);
  }
}

void take_apart(const BlockIQ3_XXS& block, int8_t* levels, LevelGroup* groups) {
  const float d = from_f16(block.d);
  for (int sub = 0; sub < 8; ++sub) groups[sub] = group_of(d, load_u32(block.signs_and_scales + 4 * sub) >> 28, 0.5f);
  for (int i = 0; i < 64; ++i, levels += 4) {
    const uint32_t word = load_u32(block.signs_and_scales + 4 * (i / 8));
    const uint32_t signs = with_eighth_sign(word >> 7 * (i / 2 % 4) & 127) >> 4 * (i % 2);
    take_signed(kIq3XxsGrid[block.qs[i]], signs, levels);
  }
}

void take_apart(const BlockIQ3_S& block, int8_t* levels, LevelGroup* groups) {
  const float d = from_f16(block.d);
  for (int sub = 0; sub < 8; ++sub) groups[sub] = {d * static_cast<float>(1 + 2 * nibble(block.scales, sub))};
  for (int i = 0; i < 64; ++i, levels += 4) {
    const uint32_t point = block.qs[i] | (block.qh[i / 8] >> i % 8 & 1u) << 8;
    take_signed(kIq3SGrid[point], static_cast<uint32_t>(block.signs[i / 2] >> 4 * (i % 2)), levels);
  }
}

void take_apart(const BlockIQ1_S& block, int8_t* levels, LevelGroup* groups) {
  const float d = from_f16(block.d);
  for (int sub = 0; sub < 8; ++sub) groups[sub] = {d * static_cast<float>(2 * (block.qh[sub] >> 12 & 7) + 1) * kEighth};
  for (int i = 0; i < 32; ++i, levels += 8) {
    const uint32_t high = block.qh[i / 4], point = block.qs[i] | (high >> 3 * (i % 4) & 7) << 8;
    take_shifted(kIq1SGrid[point], (high & 0x8000) != 0, levels);
  }
}

void take_apart(const BlockIQ1_M& block, int8_t* levels, LevelGroup* groups) {
  uint32_t d_bits = 0;  // the top nibbles of the scales, lowest first
  for (int i = 0; i < 4; ++i) d_bits |= static_cast<uint32_t>(block.scales[i] >> 12) << 4 * i;
  const float d = from_f16(static_cast<uint16_t>(d_bits));
  for (int sub = 0; sub < 16; ++sub)
    groups[sub] = {d * static_cast<float>(2 * (block.scales[sub / 4] >> 3 * (sub % 4) & 7) + 1) * kEighth};
  for (int i = 0; i < 32; ++i, levels += 8) {
    const auto high = static_cast<uint32_t>(nibble(block.qh, i)), point = block.qs[i] | (high & 7) << 8;
    take_shifted(kIq1SGrid[point], (high & 8) != 0, levels);
  }
}

void take_apart(const BlockIQ4_XS& block, int8_t* levels, LevelGroup* groups) {
  const float d = from_f16(block.d);
  for (int sub = 0; sub < 8; ++sub) {
    const int scale = (nibble(block.scales_l, sub) | (block.scales_h >> 2 * sub & 3) << 4) - 32;
    groups[sub] = {d * static_cast<float>(scale)};
    take_nibbles<16>(block.qs + 16 * sub, kIq4Values, levels + 32 * sub);
  }
}

}  // namespace

void levels_of_iq2_xxs(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockIQ2_XXS, kWeights, 32, take_apart>(data, blocks, levels, groups);
}
void levels_of_iq2_xs(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockIQ2_XS, kWeights, 16, take_apart>(data, blocks, levels, groups);
}
void levels_of_iq2_s(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockIQ2_S, kWeights, 16, take_apart>(data, blocks, levels, groups);
}
void levels_of_iq3_xxs(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockIQ3_XXS, kWeights, 32, take_apart>(data, blocks, levels, groups);
}
void levels_of_iq3_s(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockIQ3_S, kWeights, 32, take_apart>(data, blocks, levels, groups);
}
void levels_of_iq1_s(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockIQ1_S, kWeights, 32, take_apart>(data, blocks, levels, groups);
}
void levels_of_iq1_m(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockIQ1_M, kWeights, 16, take_apart>(data, blocks, levels, groups);
}
void levels_of_iq4_xs(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockIQ4_XS, kWeights, 32, take_apart>(data, blocks, levels, groups);
}

}  // namespace crumb::formats
