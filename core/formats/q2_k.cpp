#include <cstring>

#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 256;

using Scales = uint8_t __attribute__((vector_size(8)));
using Integers = int32_t __attribute__((vector_size(32)));
using Floats = float __attribute__((vector_size(32)));

/// Of eight groups. By vectors: the compiler takes loops of eight apart.
void take_groups(const uint8_t* packed, float d, float dmin, LevelGroup* groups) {
  Scales bytes;
  std::memcpy(&bytes, packed, sizeof bytes);
  const Integers both = __builtin_convertvector(bytes, Integers);
  const Floats scales = __builtin_convertvector(both & 15, Floats) * d;
  const Floats minima = -(__builtin_convertvector(both >> 4, Floats) * dmin);
  const Floats first = __builtin_shufflevector(scales, minima, 0, 8, 1, 9, 2, 10, 3, 11);
  const Floats last = __builtin_shufflevector(scales, minima, 4, 12, 5, 13, 6, 14, 7, 15);
  std::memcpy(static_cast<void*>(groups), &first, sizeof first);
  std::memcpy(static_cast<void*>(groups + 4), &last, sizeof last);
}

void take_apart(const BlockQ2_K& block, int8_t* levels, LevelGroup* groups) {
  using Bytes = uint8_t __attribute__((vector_size(32)));
  static_assert(sizeof(LevelGroup) == 8);
  const float d = from_f16(block.d), dmin = from_f16(block.dmin);
  take_groups(block.scales, d, dmin, groups);
  take_groups(block.scales + 8, d, dmin, groups + 8);
  for (const uint8_t* qs : {block.qs, block.qs + 32}) {
    Bytes packed;
    std::memcpy(&packed, qs, sizeof packed);
    for (int shift = 0; shift < 8; shift += 2, levels += 32) {  // 32 weights lie in one bit pair
      const Bytes of_pair = packed >> shift & 3;
      std::memcpy(levels, &of_pair, sizeof of_pair);
    }
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
