// Q3_K, Q4_K and Q5_K: blocks of 256 weights whose sub-blocks have 6-bit scales.
#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 256;

// The scale and the minimum of each of eight sub-blocks. Twelve bytes hold 16 numbers of 6 bits:
//   bytes 0-3: scales 0-3 (low 6 bits), bytes 4-7: minima 0-3; their top two bits are the top bits of numbers 4-7,
//   whose low four bits stand in bytes 8-11: scale | min << 4.
template <class Block>
LevelGroup unpack_k_scales(const Block& block, int sub) {
  const uint8_t* s = block.scales;
  const int scale = sub < 4 ? s[sub] & 63 : (s[sub + 4] & 15) | s[sub - 4] >> 6 << 4;
  const int min = sub < 4 ? s[sub + 4] & 63 : s[sub + 4] >> 4 | s[sub] >> 6 << 4;
  return {from_f16(block.d) * static_cast<float>(scale), -(from_f16(block.dmin) * static_cast<float>(min))};
}

// The scale of each of sixteen sub-blocks, -32..31: four low bits in the nibbles of bytes 0-7 (low nibbles first), two
// high bits in bytes 8-11 (those of scales 0-3 lowest).
int unpack_q3_k_scale(const BlockQ3_K& block, int sub) {
  const int low = block.scales[sub % 8] >> 4 * (sub / 8) & 15, high = block.scales[8 + sub % 4] >> 2 * (sub / 4) & 3;
  return (low | high << 4) - 32;
}

void take_apart(const BlockQ3_K& block, int8_t* levels, LevelGroup* groups) {
  const float d = from_f16(block.d);
  for (int sub = 0; sub < 16; ++sub) groups[sub] = {d * static_cast<float>(unpack_q3_k_scale(block, sub))};
  for (int run = 0; run < 8; ++run, levels += 32) {  // of 32 weights that share shift and mask bit
    const uint8_t* qs = block.qs + 32 * (run / 4);
    for (int l = 0; l < 32; ++l)
      levels[l] = static_cast<int8_t>(((qs[l] >> 2 * (run % 4) & 3) | (block.hmask[l] >> run & 1) << 2) - 4);
  }
}

void take_apart(const BlockQ4_K& block, int8_t* levels, LevelGroup* groups) {
  for (int sub = 0; sub < 8; ++sub) groups[sub] = unpack_k_scales(block, sub);
  for (int pair = 0; pair < 4; ++pair) take_nibbles<32>(block.qs + 32 * pair, 0, levels + 64 * pair);
}

void take_apart(const BlockQ5_K& block, int8_t* levels, LevelGroup* groups) {
  for (int sub = 0; sub < 8; ++sub, levels += 32) {
    groups[sub] = unpack_k_scales(block, sub);
    const uint8_t* qs = block.qs + 32 * (sub / 2);
    const int shift = 4 * (sub % 2);
    for (int l = 0; l < 32; ++l) levels[l] = static_cast<int8_t>((qs[l] >> shift & 15) | (block.qh[l] >> sub & 1) << 4);
  }
}

}  // namespace

void levels_of_q3_k(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockQ3_K, kWeights, 16, take_apart>(data, blocks, levels, groups);
}
void levels_of_q4_k(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockQ4_K, kWeights, 32, take_apart>(data, blocks, levels, groups);
}
void levels_of_q5_k(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockQ5_K, kWeights, 32, take_apart>(data, blocks, levels, groups);
}

}  // namespace crumb::formats
