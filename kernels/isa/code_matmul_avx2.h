// Codes times int8 activations by vpmaddubsw: 8 rows a register, four columns a lane. Included by the files of the
// instruction sets.
//
// vpmaddubsw adds two products and saturates at 2^15. It is given codes of at most 4 bits, 15 * 128 * 2 = 3840 a pair
// at most (3 * 128 * 2 = 768 of 2 bits): codes of 8 bits, and levels of a table, are two parts of 4, whose sums are
// joined at the end. Pairs
// are added in int16 for as many blocks as cannot overflow it, 8 pairs of 4 bits (30720) and 32 of 2 bits (24576), and
// then widened.
#pragma once

#include <immintrin.h>

#include "kernels/isa/code_blocks.h"

namespace crumb::kernels {
namespace {

/// How a width is taken apart: a field is four columns, a part of it at most 4 bits.
template <int kBits, Codes kCodes>
struct CodeFields {
  static constexpr int kFields = 8 / kBits;                                // of four columns in a block
  static constexpr int kLevelBits = kCodes == Codes::numbers ? 8 : kBits;  // of what is multiplied
  static constexpr int kParts = kLevelBits == 8 ? 2 : 1;                   // of it
  static constexpr int kPartBits = kLevelBits / kParts;
  static constexpr int kTileTokens = kParts == 2 ? 2 : 4;  // whose sums stay in registers
  static constexpr int64_t kBlocks = kBits == 4 ? 4 : 8;   // added in int16
  static_assert((kBits == 2 ? 768 : 3840) * kFields * kBlocks < 1 << 15);
};

/// A table of levels in parts, for each half of a register.
struct LevelParts {
  __m256i parts[2];

  LevelParts() = default;
  explicit LevelParts(const uint8_t* levels) {
    const __m256i whole = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(levels)));
    const __m256i mask = _mm256_set1_epi8(15);
    parts[0] = _mm256_and_si256(whole, mask);
    parts[1] = _mm256_and_si256(_mm256_srli_epi32(whole, 4), mask);
  }
};

/// One part of what a field stands for.
template <int kBits, Codes kCodes>
inline __m256i part_of_field(__m256i packed, int field, int part, const LevelParts& levels) {
  constexpr int kPartBits = CodeFields<kBits, kCodes>::kPartBits;
  const __m256i mask = _mm256_set1_epi8((1 << kPartBits) - 1);
  if constexpr (kCodes == Codes::numbers) {
    const __m256i code = _mm256_and_si256(_mm256_srli_epi32(packed, kBits * field), mask);
    return _mm256_shuffle_epi8(levels.parts[part], code);
  } else {
    return _mm256_and_si256(_mm256_srli_epi32(packed, kBits * field + kPartBits * part), mask);
  }
}

/// sums += pairs. GCC would add several pairs to each other first, for which there are not enough registers.
inline void add_pairs(__m256i& sums, __m256i pairs) {
  sums = _mm256_add_epi16(sums, pairs);
  asm("" : "+v"(sums));
}

/// Codes * activations of `blocks` blocks; x: of token 0 at the first column.
template <int kBits, Codes kCodes, int M>
inline TileSums<M> sum_blocks(const uint8_t* codes, int64_t blocks, const LevelParts& levels, const int8_t* x,
                              int64_t stride) {
  using Fields = CodeFields<kBits, kCodes>;
  __m256i sums[M][2];  // of rows 0 ... 7 and 8 ... 15
  for (int m = 0; m < M; ++m) sums[m][0] = sums[m][1] = _mm256_setzero_si256();
  for (int64_t first = 0; first < blocks; first += Fields::kBlocks) {
    __m256i pairs[Fields::kParts][M][2];
#pragma GCC unroll 2
    for (int part = 0; part < Fields::kParts; ++part) {
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) pairs[part][m][0] = pairs[part][m][1] = _mm256_setzero_si256();
    }
    const int64_t last = min_of(first + Fields::kBlocks, blocks);
    for (int64_t block = first; block < last; ++block, codes += kCodeBlockBytes, x += 4 * Fields::kFields) {
      _mm_prefetch(reinterpret_cast<const char*>(codes) + kPrefetchBytes, _MM_HINT_T0);
      const auto* halves = reinterpret_cast<const __m256i*>(codes);
      const __m256i packed[2] = {_mm256_loadu_si256(halves), _mm256_loadu_si256(halves + 1)};
#pragma GCC unroll 4
      for (int field = 0; field < Fields::kFields; ++field) {
#pragma GCC unroll 2
        for (int part = 0; part < Fields::kParts; ++part) {
          const __m256i low = part_of_field<kBits, kCodes>(packed[0], field, part, levels);
          const __m256i high = part_of_field<kBits, kCodes>(packed[1], field, part, levels);
#pragma GCC unroll 4
          for (int m = 0; m < M; ++m) {
            int32_t bytes;
            __builtin_memcpy(&bytes, x + m * stride + 4 * field, 4);
            const __m256i four = _mm256_set1_epi32(bytes);
            add_pairs(pairs[part][m][0], _mm256_maddubs_epi16(low, four));
            add_pairs(pairs[part][m][1], _mm256_maddubs_epi16(high, four));
          }
        }
      }
    }
#pragma GCC unroll 2
    for (int part = 0; part < Fields::kParts; ++part) {
      const __m256i weight = _mm256_set1_epi16(1 << (Fields::kPartBits * part));
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        for (int half = 0; half < 2; ++half)
          sums[m][half] = _mm256_add_epi32(sums[m][half], _mm256_madd_epi16(pairs[part][m][half], weight));
      }
    }
  }
  return TileSums<M>(sums);
}

inline void multiply_codes_int8(const Int8Tokens& x, const CodeProduct& product, int64_t begin, int64_t end) {
  with_code_form(product.matrix, [&]<int kBits, Codes kCodes>() {
    const int64_t blocks = blocks_of(x.segment_cols, kBits);
    LevelParts levels;
    if constexpr (kCodes == Codes::numbers) levels = LevelParts(product.matrix.levels);
    for (int64_t panel = begin; panel < end; ++panel) {
      for_token_tiles<CodeFields<kBits, kCodes>::kTileTokens>(x.tokens, [&]<int M>(int64_t token) {
        const CodeTile tile{x, product, panel, token};
        multiply_code_tile<kBits, M>(tile, [&](const uint8_t* codes, int64_t k, int64_t /*segment*/) {
          return sum_blocks<kBits, kCodes, M>(codes, blocks, levels, tile.activations(k), x.stride);
        });
      });
    }
  });
}

}  // namespace
}  // namespace crumb::kernels
