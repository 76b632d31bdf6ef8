#include <cstring>

#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 256;

void take_apart(const BlockQ2_K& block, int8_t* levels, LevelGroup* groups) {
  const float d = from_f16(block.d), dmin = from_f16(block.dmin);
  for (int sub = 0; sub < 16; ++sub)
    groups[sub] = {d * static_cast<float>(block.scales[sub] & 15),
                   -(dmin * static_cast<float>(block.scales[sub] >> 4))};
  for (int run = 0; run < 8; ++run, levels += 32) {  // of 32 weights that lie in one bit pair
    const uint8_t* qs = block.qs + 32 * (run / 4);
    const int shift = 2 * (run % 4);
    for (int l = 0; l < 32; ++l) levels[l] = static_cast<int8_t>(qs[l] >> shift & 3);
  }
}

}  // namespace

void levels_of_q2_k(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockQ2_K, kWeights, 16, take_apart>(data, blocks, levels, groups);
}

void pack_q2_k(const uint8_t* codes, int64_t count, uint16_t s, uint16_t half_s, uint8_t* out) {
  for (int64_t at = 0; at < count; at += kWeights, codes += kWeights, out += sizeof(BlockQ2_K)) {
    BlockQ2_K block{.scales = {}, .qs = {}, .d = s, .dmin = half_s};
    std::memset(block.scales, kSeqSubScale, sizeof block.scales);
    for (int h = 0; h < 2; ++h) {
      const uint8_t* from = codes + 128 * h;
      for (int l = 0; l < 32; ++l) {
        block.qs[32 * h + l] =
            static_cast<uint8_t>(from[l] | from[l + 32] << 2 | from[l + 64] << 4 | from[l + 96] << 6);
      }
    }
    std::memcpy(out, &block, sizeof block);
  }
}

}  // namespace crumb::formats
