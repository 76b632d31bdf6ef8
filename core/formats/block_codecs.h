// The block types one by one; codec.h and block_levels.h are the ways in. `count` weights, whole blocks; data may lie
// at any byte.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "core/formats/block_levels.h"

namespace crumb::formats {

/// Takes blocks of `kWeights` weights in groups of kGroupCols apart, one by one.
template <class Block, int kWeights, int kGroupCols, void (*kTakeApart)(const Block&, int8_t*, LevelGroup*)>
__attribute__((flatten)) void take_blocks_apart(const uint8_t* data, int64_t blocks, int8_t* levels,
                                                LevelGroup* groups) {
  const auto for_blocks = [&](const auto& take_levels) {
    for (int64_t i = 0; i < blocks; ++i, data += sizeof(Block), groups += kWeights / kGroupCols) {
      Block block;
      int8_t of_block[kWeights];  // which the compiler sees to lie apart from the block, and to be unused
      std::memcpy(&block, data, sizeof block);
      kTakeApart(block, of_block, groups);
      take_levels(i, of_block);
    }
  };
  if (levels == nullptr) return for_blocks([](int64_t, const int8_t*) {});
  for_blocks([&](int64_t i, const int8_t* of_block) { std::memcpy(levels + i * kWeights, of_block, kWeights); });
}

/// kHalf bytes as 2 kHalf numbers, those of the low nibbles first, less `zero`. By vectors: the compiler takes loops of
/// 16 apart.
template <int kHalf>
void take_nibbles(const uint8_t* qs, int zero, int8_t* levels) {
  using Bytes = uint8_t __attribute__((vector_size(16)));
  for (int j = 0; j < kHalf; j += 16) {
    Bytes packed;
    std::memcpy(&packed, qs + j, sizeof packed);
    const Bytes low = (packed & 15) - static_cast<uint8_t>(zero), high = (packed >> 4) - static_cast<uint8_t>(zero);
    std::memcpy(levels + j, &low, sizeof low);
    std::memcpy(levels + kHalf + j, &high, sizeof high);
  }
}

/// 2 kHalf numbers below 16 as kHalf bytes, the other way.
template <int kHalf>
void join_nibbles(const uint8_t* numbers, uint8_t* qs) {
  for (int j = 0; j < kHalf; ++j) qs[j] = static_cast<uint8_t>(numbers[j] | numbers[j + kHalf] << 4);
}

/// Numbers by what each nibble means.
template <int kHalf>
void take_nibbles(const uint8_t* qs, const std::array<int8_t, 16>& meanings, int8_t* levels) {
  for (int j = 0; j < kHalf; ++j) {
    levels[j] = meanings[qs[j] & 15];
    levels[j + kHalf] = meanings[qs[j] >> 4];
  }
}

/// decode_levels() of each type: levels and groups of so many blocks.
void levels_of_nibbles(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_q4_0(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_q4_1(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_q5_0(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_q5_1(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_q8_0(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_q2_k(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_q3_k(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_q4_k(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_q5_k(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_q6_k(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_q2_0c(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_iq4_nl(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_iq4_xs(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_iq2_xxs(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_iq2_xs(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_iq2_s(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_iq3_xxs(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_iq3_s(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_iq1_s(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_iq1_m(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_tq1_0(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_tq2_0(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_mxfp4(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);
void levels_of_nvfp4(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups);

/// Finite values. Throw UserError when a scale leaves the range of binary16.
void encode_q4_0(const float* values, int64_t count, uint8_t* out);
void encode_q4_1(const float* values, int64_t count, uint8_t* out);
void encode_q8_0(const float* values, int64_t count, uint8_t* out);
void encode_q6_k(const float* values, int64_t count, uint8_t* out);

/// Blocks of integers q * d, d one scale for all: q in -8..7 and -128..127.
void pack_q4_0(const int8_t* q, int64_t count, uint16_t d, uint8_t* out);
void pack_q8_0(const int8_t* q, int64_t count, uint16_t d, uint8_t* out);
/// Blocks q * d + m, q in 0..15.
void pack_q4_1(const uint8_t* q, int64_t count, uint16_t d, uint16_t m, uint8_t* out);
/// Scale and minimum of a Q2_K sub-block of SEQ codes: sc = 1, m = 3, value = s * q - 3 * (s / 2) = (q - 1.5) * s.
inline constexpr uint8_t kSeqSubScale = 0x31;
/// SEQ codes 0..3 with scale s: Q2_K holds s (halves s and s / 2), Q2_0C holds d = s / 2.
void pack_q2_k(const uint8_t* codes, int64_t count, uint16_t s, uint16_t half_s, uint8_t* out);
void pack_q2_0c(const uint8_t* codes, int64_t count, uint16_t d, uint8_t* out);

/// binary16, or UserError when it is not finite there.
uint16_t finite_f16(float scale);

}  // namespace crumb::formats
