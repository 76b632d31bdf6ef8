#include <cstring>

#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 512;

void take_apart(const BlockQ2_0C& block, int8_t* levels, LevelGroup* groups) {
  for (int j = 0; j < kWeights; ++j) levels[j] = static_cast<int8_t>(2 * (block.qs[j / 4] >> 2 * (j % 4) & 3) - 3);
  *groups = {from_f16(block.d)};
}

}  // namespace

void levels_of_q2_0c(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockQ2_0C, kWeights, kWeights, take_apart>(data, blocks, levels, groups);
}

void pack_q2_0c(const uint8_t* codes, int64_t count, uint16_t d, uint8_t* out) {
  for (int64_t at = 0; at < count; at += kWeights, codes += kWeights, out += sizeof(BlockQ2_0C)) {
    BlockQ2_0C block{.d = d, .qs = {}};
    for (int j = 0; j < kWeights; j += 4) {
      block.qs[j / 4] = static_cast<uint8_t>(codes[j] | codes[j + 1] << 2 | codes[j + 2] << 4 | codes[j + 3] << 6);
    }
    std::memcpy(out, &block, sizeof block);
  }
}

}  // namespace crumb::formats
