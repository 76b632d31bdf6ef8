// Decoders of Q3_K, Q4_K and Q5_K: blocks of 256 weights whose sub-blocks have 6-bit scales.
#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 256;

struct ScaleAndMin {
  float scale, min;
};

// The scale and the minimum of each of eight sub-blocks, times d and dmin. Twelve bytes hold 16 numbers of 6 bits:
//   bytes 0-3: scales 0-3 (low 6 bits), bytes 4-7: minima 0-3; their top two bits are the top bits of numbers 4-7,
//   whose low four bits stand in bytes 8-11: scale | min << 4.
template <class Block>
ScaleAndMin unpack_k_scales(const Block& block, int sub) {
  const uint8_t* s = block.scales;
  const int scale = sub < 4 ? s[sub] & 63 : (s[sub + 4] & 15) | s[sub - 4] >> 6 << 4;
  const int min = sub < 4 ? s[sub + 4] & 63 : s[sub + 4] >> 4 | s[sub] >> 6 << 4;
  return {from_f16(block.d) * static_cast<float>(scale), from_f16(block.dmin) * static_cast<float>(min)};
}

// The scale of each of sixteen sub-blocks, -32..31: four low bits in the nibbles of bytes 0-7 (low nibbles first), two
// high bits in bytes 8-11 (those of scales 0-3 lowest).
int unpack_q3_k_scale(const BlockQ3_K& block, int sub) {
  const int low = block.scales[sub % 8] >> 4 * (sub / 8) & 15, high = block.scales[8 + sub % 4] >> 2 * (sub / 4) & 3;
  return (low | high << 4) - 32;
}

void decode_block(const BlockQ3_K& block, float* out) {
  const float d = from_f16(block.d);
  for (int sub = 0; sub < 16; ++sub, out += 16) {
    const float scale = d * static_cast<float>(unpack_q3_k_scale(block, sub));
    const int run = sub / 2, lane = 16 * (sub % 2);  // a run of 32 weights shares shift and mask bit
    const uint8_t* qs = block.qs + 32 * (run / 4) + lane;
    const uint8_t* hmask = block.hmask + lane;
    for (int l = 0; l < 16; ++l) {
      const int q = (qs[l] >> 2 * (run % 4) & 3) | (hmask[l] >> run & 1) << 2;
      out[l] = scale * static_cast<float>(q - 4);
    }
  }
}

void decode_block(const BlockQ4_K& block, float* out) {
  for (int sub = 0; sub < 8; ++sub, out += 32) {
    const auto [scale, min] = unpack_k_scales(block, sub);
    const uint8_t* qs = block.qs + 32 * (sub / 2);
    const int shift = 4 * (sub % 2);
    for (int l = 0; l < 32; ++l) out[l] = scale * static_cast<float>(qs[l] >> shift & 15) - min;
  }
}

void decode_block(const BlockQ5_K& block, float* out) {
  for (int sub = 0; sub < 8; ++sub, out += 32) {
    const auto [scale, min] = unpack_k_scales(block, sub);
    const uint8_t* qs = block.qs + 32 * (sub / 2);
    const int shift = 4 * (sub % 2);
    for (int l = 0; l < 32; ++l) {
      const int q = (qs[l] >> shift & 15) | (block.qh[l] >> sub & 1) << 4;
      out[l] = scale * static_cast<float>(q) - min;
    }
  }
}

template <class Block>
void decode_blocks(const uint8_t* data, int64_t count, float* out) {
  for_each_block<Block, kWeights>(data, count, out, [](const Block& block, float* to) { decode_block(block, to); });
}

}  // namespace

void decode_q3_k(const uint8_t* data, int64_t count, float* out) { decode_blocks<BlockQ3_K>(data, count, out); }
void decode_q4_k(const uint8_t* data, int64_t count, float* out) { decode_blocks<BlockQ4_K>(data, count, out); }
void decode_q5_k(const uint8_t* data, int64_t count, float* out) { decode_blocks<BlockQ5_K>(data, count, out); }

}  // namespace crumb::formats
