#include <cstring>

#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 256;

}  // namespace

void decode_q2_k(const uint8_t* data, int64_t count, float* out) {
  for (int64_t at = 0; at < count; at += kWeights, data += sizeof(BlockQ2_K)) {
    BlockQ2_K block;
    std::memcpy(&block, data, sizeof block);
    const float d = from_f16(block.d), dmin = from_f16(block.dmin);
    for (int group = 0; group < 16; ++group, out += 16) {  // 16 weights: half of the 32 lanes of one bit pair
      const uint8_t* qs = block.qs + 32 * (group / 8) + 16 * (group % 2);
      const int shift = 2 * (group / 2 % 4);
      const float scale = d * static_cast<float>(block.scales[group] & 15),
                  min = dmin * static_cast<float>(block.scales[group] >> 4);
      for (int l = 0; l < 16; ++l) out[l] = scale * static_cast<float>(qs[l] >> shift & 3) - min;
    }
  }
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
