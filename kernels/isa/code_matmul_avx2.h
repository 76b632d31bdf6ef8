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

/// sums[m][half] += codes * activations of `blocks` blocks, rows 8 half ... 8 half + 7; x: of token 0 at the first
/// column.
template <int kBits, Codes kCodes, int M>
inline void add_blocks(const uint8_t* codes, int64_t blocks, const LevelParts& levels, const int8_t* x, int64_t stride,
                       __m256i (&sums)[M][2]) {
  using Fields = CodeFields<kBits, kCodes>;
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
            pairs[part][m][0] = _mm256_add_epi16(pairs[part][m][0], _mm256_maddubs_epi16(low, four));
            pairs[part][m][1] = _mm256_add_epi16(pairs[part][m][1], _mm256_maddubs_epi16(high, four));
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
}

template <int kBits, Codes kCodes, int M>
inline void multiply_code_tile(const CodeTile& tile) {
  const CodeMatrix& matrix = tile.matrix();
  const Int8Tokens& x = tile.x;
  const float* bias = tile.product.bias == nullptr ? nullptr : tile.product.bias + tile.panel * kCodePanelRows;
  const int64_t blocks = blocks_of(x.segment_cols, kBits), rows = tile.rows();
  const uint8_t* codes = tile.codes();
  alignas(32) float y[M][kCodePanelRows] = {};
  for (int m = 0; m < M && bias != nullptr; ++m) {
    for (int64_t r = 0; r < rows; ++r) y[m][r] = bias[r];
  }
  LevelParts levels;
  if constexpr (kCodes == Codes::numbers) levels = LevelParts(matrix.levels);
  const __m128i doubled = _mm_cvtsi32_si128(matrix.step - 1);
  for (int64_t segment = 0; segment < tile.segments(); ++segment, codes += blocks * kCodeBlockBytes) {
    __m256i sums[M][2];
    for (int m = 0; m < M; ++m) sums[m][0] = sums[m][1] = _mm256_setzero_si256();
    add_blocks<kBits, kCodes, M>(codes, blocks, levels, x.codes + tile.token * x.stride + segment * x.segment_cols,
                                 x.stride, sums);
    const int64_t at = tile.scales_at(segment);
    for (int half = 0; half < 2; ++half) {
      const __m256 scales = _mm256_loadu_ps(matrix.scales + at + 8 * half);
      const __m256i zeros = matrix.zeros == nullptr
                                ? _mm256_set1_epi32(matrix.zero)
                                : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(matrix.zeros + at + 8 * half));
      for (int m = 0; m < M; ++m) {
        const __m256i of_zeros = _mm256_mullo_epi32(zeros, _mm256_set1_epi32(tile.sum(m, segment)));
        const __m256i whole = _mm256_sub_epi32(_mm256_sll_epi32(sums[m][half], doubled), of_zeros);
        const __m256 scale = _mm256_mul_ps(scales, _mm256_set1_ps(tile.scale(m, segment)));
        float* out = y[m] + 8 * half;
        _mm256_store_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole), scale, _mm256_load_ps(out)));
        if (matrix.minima == nullptr) continue;
        const __m256 sum = _mm256_set1_ps(static_cast<float>(tile.sum(m, segment)));
        const __m256 minima = _mm256_loadu_ps(matrix.minima + at + 8 * half);
        const __m256 minimum = _mm256_mul_ps(minima, _mm256_set1_ps(tile.scale(m, segment)));
        _mm256_store_ps(out, _mm256_fmadd_ps(sum, minimum, _mm256_load_ps(out)));
      }
    }
  }
  for (int m = 0; m < M; ++m) __builtin_memcpy(tile.y(m), y[m], static_cast<unsigned long>(rows) * sizeof(float));
}

inline void multiply_codes_int8(const Int8Tokens& x, const CodeProduct& product, int64_t begin, int64_t end) {
  with_code_form(product.matrix, [&]<int kBits, Codes kCodes>() {
    for (int64_t panel = begin; panel < end; ++panel) {
      for_token_tiles<CodeFields<kBits, kCodes>::kTileTokens>(x.tokens, [&]<int M>(int64_t token) {
        multiply_code_tile<kBits, kCodes, M>({x, product, panel, token});
      });
    }
  });
}

}  // namespace
}  // namespace crumb::kernels
