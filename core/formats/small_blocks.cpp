// Decoders of the types with blocks of 32 weights that are only read.
#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 32, kHalf = kWeights / 2;

// Low nibbles first, then high ones.
template <class Value>
void decode_nibbles(const uint8_t* qs, float* out, const Value& value) {
  for (int j = 0; j < kHalf; ++j) out[j] = value(qs[j] & 15);
  for (int j = 0; j < kHalf; ++j) out[j + kHalf] = value(qs[j] >> 4);
}

// Nibbles with a fifth bit, 0..31.
template <class Value>
void decode_five_bits(const uint8_t* qs, const uint8_t* qh, float* out, const Value& value) {
  uint32_t high;
  std::memcpy(&high, qh, sizeof high);
  for (uint32_t j = 0; j < kHalf; ++j) {
    out[j] = value(static_cast<int>((qs[j] & 15u) | (high >> j & 1) << 4));
    out[j + kHalf] = value(static_cast<int>(qs[j] >> 4 | (high >> (j + kHalf) & 1) << 4));
  }
}

}  // namespace

void decode_q4_1(const uint8_t* data, int64_t count, float* out) {
  for_each_block<BlockQ4_1, kWeights>(data, count, out, [](const BlockQ4_1& block, float* to) {
    const float d = from_f16(block.d), m = from_f16(block.m);
    decode_nibbles(block.qs, to, [d, m](int q) { return d * static_cast<float>(q) + m; });
  });
}

void decode_q5_0(const uint8_t* data, int64_t count, float* out) {
  for_each_block<BlockQ5_0, kWeights>(data, count, out, [](const BlockQ5_0& block, float* to) {
    const float d = from_f16(block.d);
    decode_five_bits(block.qs, block.qh, to, [d](int q) { return d * static_cast<float>(q - 16); });
  });
}

void decode_q5_1(const uint8_t* data, int64_t count, float* out) {
  for_each_block<BlockQ5_1, kWeights>(data, count, out, [](const BlockQ5_1& block, float* to) {
    const float d = from_f16(block.d), m = from_f16(block.m);
    decode_five_bits(block.qs, block.qh, to, [d, m](int q) { return d * static_cast<float>(q) + m; });
  });
}

}  // namespace crumb::formats
