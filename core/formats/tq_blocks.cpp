// Decoders of TQ1_0 and TQ2_0: ternary weights, blocks of 256.
#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 256;

// `runs` runs of `bytes` weights, run n of digit n. A byte is ceil(256 / 243 * number), so that digit n, the most
// significant first, is the whole part of 3 times the fraction (byte * 3^n mod 256) / 256.
float* decode_digits(const uint8_t* qs, int bytes, int runs, float d, float* out) {
  int power = 1;
  for (int run = 0; run < runs; ++run, power *= 3, out += bytes) {
    for (int l = 0; l < bytes; ++l) out[l] = d * static_cast<float>((3 * (qs[l] * power & 255) >> 8) - 1);
  }
  return out;
}

}  // namespace

void decode_tq1_0(const uint8_t* data, int64_t count, float* out) {
  for_each_block<BlockTQ1_0, kWeights>(data, count, out, [](const BlockTQ1_0& block, float* to) {
    const float d = from_f16(block.d);
    to = decode_digits(block.qs, 32, 5, d, to);
    to = decode_digits(block.qs + 32, 16, 5, d, to);
    decode_digits(block.qh, 4, 4, d, to);
  });
}

void decode_tq2_0(const uint8_t* data, int64_t count, float* out) {
  for_each_block<BlockTQ2_0, kWeights>(data, count, out, [](const BlockTQ2_0& block, float* to) {
    const float d = from_f16(block.d);
    for (int run = 0; run < 8; ++run, to += 32) {
      const uint8_t* qs = block.qs + 32 * (run / 4);
      const int shift = 2 * (run % 4);
      for (int l = 0; l < 32; ++l) to[l] = d * static_cast<float>((qs[l] >> shift & 3) - 1);
    }
  });
}

}  // namespace crumb::formats
