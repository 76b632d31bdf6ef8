#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 32, kHalf = kWeights / 2;

void take_apart(const BlockQ4_1& block, int8_t* levels, LevelGroup* groups) {
  take_nibbles<kHalf>(block.qs, 0, levels);
  *groups = {from_f16(block.d), from_f16(block.m)};
}

}  // namespace

void levels_of_q4_1(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockQ4_1, kWeights, kWeights, take_apart>(data, blocks, levels, groups);
}

void encode_q4_1(const float* values, int64_t count, uint8_t* out) {
  constexpr float kTop = 15;
  for (int64_t at = 0; at < count; at += kWeights, values += kWeights, out += sizeof(BlockQ4_1)) {
    const auto [least, most] = std::minmax_element(values, values + kWeights);
    const float d = (*most - *least) / kTop, inverse = std::isfinite(1 / d) ? 1 / d : 0;
    uint8_t q[kWeights];
    for (int i = 0; i < kWeights; ++i)
      q[i] = static_cast<uint8_t>(std::min(kTop, (values[i] - *least) * inverse + 0.5f));
    pack_q4_1(q, kWeights, finite_f16(d), finite_f16(*least), out);
  }
}

void pack_q4_1(const uint8_t* q, int64_t count, uint16_t d, uint16_t m, uint8_t* out) {
  for (int64_t at = 0; at < count; at += kWeights, q += kWeights, out += sizeof(BlockQ4_1)) {
    BlockQ4_1 block{.d = d, .m = m, .qs = {}};
    join_nibbles<kHalf>(q, block.qs);
    std::memcpy(out, &block, sizeof block);
  }
}

}  // namespace crumb::formats
