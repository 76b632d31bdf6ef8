// Decoders of the IQ types: groups of weights are points of a codebook, or nibbles an uneven scale.
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

// The weights of one point, from the lowest bit of `signs`.
template <size_t W>
void write_signed(const std::array<int8_t, W>& point, float scale, uint32_t signs, float* out) {
  for (size_t i = 0; i < W; ++i) {
    const float value = scale * static_cast<float>(point[i]);
    out[i] = (signs >> i & 1) != 0 ? -value : value;
  }
}

// Eight weights of IQ1: the whole point is shifted up or down.
void write_shifted(const std::array<int8_t, 8>& point, float scale, bool is_down, float* out) {
  const float delta = is_down ? -0.125f : 0.125f;
  for (size_t i = 0; i < point.size(); ++i) out[i] = scale * (static_cast<float>(point[i]) + delta);
}

int nibble(const uint8_t* bytes, int i) { return bytes[i / 2] >> 4 * (i % 2) & 15; }

// d * (0.5 + scale) * unit
float scale_of(float d, uint32_t scale, float unit) { return d * (0.5f + static_cast<float>(scale)) * unit; }

void decode_block(const BlockIQ2_XXS& block, float* out) {
  const float d = from_f16(block.d);
  for (const auto& group : block.groups) {  // of 32 weights
    const uint32_t word = load_u32(group.signs_and_scale);
    const float scale = scale_of(d, word >> 28, 0.25f);
    for (int i = 0; i < 4; ++i, out += 8) {
      write_signed(kIq2XxsGrid[group.points[i]], scale, with_eighth_sign(word >> 7 * i & 127), out);
    }
  }
}

void decode_block(const BlockIQ2_XS& block, float* out) {
  const float d = from_f16(block.d);
  for (int i = 0; i < 32; ++i, out += 8) {
    const uint32_t q = block.qs[i];
    const float scale = scale_of(d, static_cast<uint32_t>(nibble(block.scales, i / 2)), 0.25f);
    write_signed(kIq2XsGrid[q & 511], scale, with_eighth_sign(q >> 9), out);
  }
}

void decode_block(const BlockIQ2_S& block, float* out) {
  const float d = from_f16(block.d);
  for (int i = 0; i < 32; ++i, out += 8) {
    const uint32_t point = block.qs[i] | (block.qh[i / 4] >> 2 * (i % 4) & 3u) << 8;
    const float scale = scale_of(d, static_cast<uint32_t>(nibble(block.scales, i / 2)), 0.25f);
    write_signed(kIq2SGrid[point], scale, block.signs[i], out);
  }
}

void decode_block(const BlockIQ3_XXS& block, float* out) {
  const float d = from_f16(block.d);
  for (int i = 0; i < 64; ++i, out += 4) {
    const uint32_t word = load_u32(block.signs_and_scales + 4 * (i / 8));
    const uint32_t signs = with_eighth_sign(word >> 7 * (i / 2 % 4) & 127) >> 4 * (i % 2);
    write_signed(kIq3XxsGrid[block.qs[i]], scale_of(d, word >> 28, 0.5f), signs, out);
  }
}

void decode_block(const BlockIQ3_S& block, float* out) {
  const float d = from_f16(block.d);
  for (int i = 0; i < 64; ++i, out += 4) {
    const uint32_t point = block.qs[i] | (block.qh[i / 8] >> i % 8 & 1u) << 8;
    const float scale = d * static_cast<float>(1 + 2 * nibble(block.scales, i / 8));
    write_signed(kIq3SGrid[point], scale, static_cast<uint32_t>(block.signs[i / 2] >> 4 * (i % 2)), out);
  }
}

void decode_block(const BlockIQ1_S& block, float* out) {
  const float d = from_f16(block.d);
  for (int i = 0; i < 32; ++i, out += 8) {
    const uint32_t high = block.qh[i / 4], point = block.qs[i] | (high >> 3 * (i % 4) & 7) << 8;
    const float scale = d * static_cast<float>(2 * (high >> 12 & 7) + 1);
    write_shifted(kIq1SGrid[point], scale, (high & 0x8000) != 0, out);
  }
}

void decode_block(const BlockIQ1_M& block, float* out) {
  uint32_t d_bits = 0;  // the top nibbles of the scales, lowest first
  for (int i = 0; i < 4; ++i) d_bits |= static_cast<uint32_t>(block.scales[i] >> 12) << 4 * i;
  const float d = from_f16(static_cast<uint16_t>(d_bits));
  for (int i = 0; i < 32; ++i, out += 8) {
    const auto high = static_cast<uint32_t>(nibble(block.qh, i)), point = block.qs[i] | (high & 7) << 8;
    const int sub = i / 2;  // of 16 weights
    const float scale = d * static_cast<float>(2 * (block.scales[sub / 4] >> 3 * (sub % 4) & 7) + 1);
    write_shifted(kIq1SGrid[point], scale, (high & 8) != 0, out);
  }
}

void decode_block(const BlockIQ4_XS& block, float* out) {
  const float d = from_f16(block.d);
  for (int sub = 0; sub < 8; ++sub, out += 32) {
    const int scale = (nibble(block.scales_l, sub) | (block.scales_h >> 2 * sub & 3) << 4) - 32;
    decode_nibbles<16>(block.qs + 16 * sub, scaled(kIq4Values, d * static_cast<float>(scale)), out);
  }
}

template <class Block>
void decode_blocks(const uint8_t* data, int64_t count, float* out) {
  for_each_block<Block, kWeights>(data, count, out, [](const Block& block, float* to) { decode_block(block, to); });
}

}  // namespace

void decode_iq2_xxs(const uint8_t* data, int64_t count, float* out) { decode_blocks<BlockIQ2_XXS>(data, count, out); }
void decode_iq2_xs(const uint8_t* data, int64_t count, float* out) { decode_blocks<BlockIQ2_XS>(data, count, out); }
void decode_iq2_s(const uint8_t* data, int64_t count, float* out) { decode_blocks<BlockIQ2_S>(data, count, out); }
void decode_iq3_xxs(const uint8_t* data, int64_t count, float* out) { decode_blocks<BlockIQ3_XXS>(data, count, out); }
void decode_iq3_s(const uint8_t* data, int64_t count, float* out) { decode_blocks<BlockIQ3_S>(data, count, out); }
void decode_iq1_s(const uint8_t* data, int64_t count, float* out) { decode_blocks<BlockIQ1_S>(data, count, out); }
void decode_iq1_m(const uint8_t* data, int64_t count, float* out) { decode_blocks<BlockIQ1_M>(data, count, out); }
void decode_iq4_xs(const uint8_t* data, int64_t count, float* out) { decode_blocks<BlockIQ4_XS>(data, count, out); }

}  // namespace crumb::formats
