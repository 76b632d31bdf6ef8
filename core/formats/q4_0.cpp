#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 32, kHalf = kWeights / 2;

void pack_block(const uint8_t* q, uint16_t d, uint8_t* out) {
  BlockQ4_0 block{.d = d, .qs = {}};
  join_nibbles<kHalf>(q, block.qs);
  std::memcpy(out, &block, sizeof block);
}

// The first weight of greatest magnitude, with its sign: it becomes the level -8.
float extreme(const float* x) {
  float max = x[0];
  for (int i = 1; i < kWeights; ++i) {
    if (std::abs(x[i]) > std::abs(max)) max = x[i];
  }
  return max;
}

void take_apart(const BlockQ4_0& block, int8_t* levels, LevelGroup* groups) {
  take_nibbles<kHalf>(block.qs, 8, levels);
  *groups = {from_f16(block.d)};
}

}  // namespace

void levels_of_q4_0(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockQ4_0, kWeights, kWeights, take_apart>(data, blocks, levels, groups);
}

void encode_q4_0(const float* values, int64_t count, uint8_t* out) {
  for (int64_t at = 0; at < count; at += kWeights, values += kWeights, out += sizeof(BlockQ4_0)) {
    const float d = extreme(values) / -8, inverse = std::isfinite(1 / d) ? 1 / d : 0;
    uint8_t q[kWeights];
    for (int i = 0; i < kWeights; ++i) {
      q[i] = static_cast<uint8_t>(std::min(15.0f, values[i] * inverse + 8.5f));  // 0.5 to 16.5, cut off
    }
    pack_block(q, finite_f16(d), out);
  }
}

void pack_q4_0(const int8_t* q, int64_t count, uint16_t d, uint8_t* out) {
  for (int64_t at = 0; at < count; at += kWeights, q += kWeights, out += sizeof(BlockQ4_0)) {
    uint8_t shifted[kWeights];
    for (int i = 0; i < kWeights; ++i) shifted[i] = static_cast<uint8_t>(q[i] + 8);
    pack_block(shifted, d, out);
  }
}

}  // namespace crumb::formats
