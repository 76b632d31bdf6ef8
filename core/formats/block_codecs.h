// The block types one by one; codec.h is the way in. `count` weights, whole blocks; data may lie at any byte.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

namespace crumb::formats {

/// Calls decode(block, out) for block after block of `kWeights` weights.
template <class Block, int kWeights, class Decode>
void for_each_block(const uint8_t* data, int64_t count, float* out, const Decode& decode) {
  for (int64_t at = 0; at < count; at += kWeights, data += sizeof(Block), out += kWeights) {
    Block block;
    std::memcpy(&block, data, sizeof block);
    decode(block, out);
  }
}

/// Sixteen levels times a scale: what the nibbles of a (sub-)block mean.
inline std::array<float, 16> scaled(const std::array<int8_t, 16>& values, float scale) {
  std::array<float, 16> levels;
  for (size_t i = 0; i < levels.size(); ++i) levels[i] = scale * static_cast<float>(values[i]);
  return levels;
}

/// kHalf bytes as 2 kHalf weights: the low nibbles, then the high ones.
template <int kHalf>
void decode_nibbles(const uint8_t* qs, const std::array<float, 16>& levels, float* out) {
  for (int j = 0; j < kHalf; ++j) {
    out[j] = levels[qs[j] & 15];
    out[j + kHalf] = levels[qs[j] >> 4];
  }
}

void decode_q4_0(const uint8_t* data, int64_t count, float* out);
void decode_q4_1(const uint8_t* data, int64_t count, float* out);
void decode_q5_0(const uint8_t* data, int64_t count, float* out);
void decode_q5_1(const uint8_t* data, int64_t count, float* out);
void decode_q8_0(const uint8_t* data, int64_t count, float* out);
void decode_q2_k(const uint8_t* data, int64_t count, float* out);
void decode_q3_k(const uint8_t* data, int64_t count, float* out);
void decode_q4_k(const uint8_t* data, int64_t count, float* out);
void decode_q5_k(const uint8_t* data, int64_t count, float* out);
void decode_q6_k(const uint8_t* data, int64_t count, float* out);
void decode_q2_0c(const uint8_t* data, int64_t count, float* out);
void decode_iq4_nl(const uint8_t* data, int64_t count, float* out);
void decode_iq4_xs(const uint8_t* data, int64_t count, float* out);
void decode_iq2_xxs(const uint8_t* data, int64_t count, float* out);
void decode_iq2_xs(const uint8_t* data, int64_t count, float* out);
void decode_iq2_s(const uint8_t* data, int64_t count, float* out);
void decode_iq3_xxs(const uint8_t* data, int64_t count, float* out);
void decode_iq3_s(const uint8_t* data, int64_t count, float* out);
void decode_iq1_s(const uint8_t* data, int64_t count, float* out);
void decode_iq1_m(const uint8_t* data, int64_t count, float* out);
void decode_tq1_0(const uint8_t* data, int64_t count, float* out);
void decode_tq2_0(const uint8_t* data, int64_t count, float* out);
void decode_mxfp4(const uint8_t* data, int64_t count, float* out);
void decode_nvfp4(const uint8_t* data, int64_t count, float* out);

/// Finite values. Throw UserError when a scale leaves the range of binary16.
void encode_q4_0(const float* values, int64_t count, uint8_t* out);
void encode_q8_0(const float* values, int64_t count, uint8_t* out);
void encode_q6_k(const float* values, int64_t count, uint8_t* out);

/// Blocks of integers q * d, d one scale for all: q in -8..7 and -128..127.
void pack_q4_0(const int8_t* q, int64_t count, uint16_t d, uint8_t* out);
void pack_q8_0(const int8_t* q, int64_t count, uint16_t d, uint8_t* out);
/// Scale and minimum of a Q2_K sub-block of SEQ codes: sc = 1, m = 3, value = s * q - 3 * (s / 2) = (q - 1.5) * s.
inline constexpr uint8_t kSeqSubScale = 0x31;
/// SEQ codes 0..3 with scale s: Q2_K holds s (halves s and s / 2), Q2_0C holds d = s / 2.
void pack_q2_k(const uint8_t* codes, int64_t count, uint16_t s, uint16_t half_s, uint8_t* out);
void pack_q2_0c(const uint8_t* codes, int64_t count, uint16_t d, uint8_t* out);

/// binary16, or UserError when it is not finite there.
uint16_t finite_f16(float scale);

}  // namespace crumb::formats
