// TQ1_0 and TQ2_0: ternary weights, blocks of 256.
#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 256;

// `runs` runs of `bytes` weights, run n of digit n. A byte is ceil(256 / 243 * number), so that digit n, the most
// significant first, is the whole part of 3 times the fraction (byte * 3^n mod 256) / 256.
int8_t* take_digits(const uint8_t* qs, int bytes, int runs, int8_t* levels) {
  int power = 1;
  for (int run = 0; run < runs; ++run, power *= 3, levels += bytes) {
    for (int l = 0; l < bytes; ++l) levels[l] = static_cast<int8_t>((3 * (qs[l] * power & 255) >> 8) - 1);
  }
  return levels;
}

void take_apart(const BlockTQ1_0& block, int8_t* levels, LevelGroup* groups) {
  levels = take_digits(block.qs, 32, 5, levels);
  levels = take_digits(block.qs + 32, 16, 5, levels);
  take_digits(block.qh, 4, 4, levels);
  *groups = {from_f16(block.d)};
}

void take_apart(const BlockTQ2_0& block, int8_t* levels, LevelGroup* groups) {
  for (int run = 0; run < 8; ++run, levels += 32) {
    const uint8_t* qs = block.qs + 32 * (run / 4);
    const int shift = 2 * (run % 4);
    for (int l = 0; l < 32; ++l) levels[l] = static_cast<int8_t>((qs[l] >> shift & 3) - 1);
  }
  *groups = {from_f16(block.d)};
}

}  // namespace

void levels_of_tq1_0(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockTQ1_0, kWeights, kWeights, take_apart>(data, blocks, levels, groups);
}
void levels_of_tq2_0(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockTQ2_0, kWeights, kWeights, take_apart>(data, blocks, levels, groups);
}

}  // namespace crumb::formats
