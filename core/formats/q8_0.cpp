#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 32;

// Halves away from zero, without the double rounding of floor(x + 0.5).
float round_half_away(float x) {
  const float magnitude = std::abs(x), whole = std::floor(magnitude);
  return std::copysign(whole + std::floor(2 * (magnitude - whole)), x);
}

void take_apart(const BlockQ8_0& block, int8_t* levels, LevelGroup* groups) {
  std::copy_n(block.qs, kWeights, levels);
  *groups = {from_f16(block.d)};
}

}  // namespace

void levels_of_q8_0(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockQ8_0, kWeights, kWeights, take_apart>(data, blocks, levels, groups);
}

void encode_q8_0(const float* values, int64_t count, uint8_t* out) {
  for (int64_t at = 0; at < count; at += kWeights, values += kWeights, out += sizeof(BlockQ8_0)) {
    float max = 0;
    for (int i = 0; i < kWeights; ++i) max = std::max(max, std::abs(values[i]));
    const float d = max / 127, inverse = std::isfinite(1 / d) ? 1 / d : 0;
    BlockQ8_0 block{.d = finite_f16(d), .qs = {}};
    for (int i = 0; i < kWeights; ++i) {
      block.qs[i] = static_cast<int8_t>(round_half_away(values[i] * inverse));  // within -127..127
    }
    std::memcpy(out, &block, sizeof block);
  }
}

void pack_q8_0(const int8_t* q, int64_t count, uint16_t d, uint8_t* out) {
  for (int64_t at = 0; at < count; at += kWeights, q += kWeights, out += sizeof(BlockQ8_0)) {
    BlockQ8_0 block{.d = d, .qs = {}};
    std::copy_n(q, kWeights, block.qs);
    std::memcpy(out, &block, sizeof block);
  }
}

}  // namespace crumb::formats
