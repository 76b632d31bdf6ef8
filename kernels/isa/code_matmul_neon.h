// Codes times int8 activations for 64-bit Arm: four rows a register, four columns a lane, by sdot where the file is
// compiled for it; pairs of tokens by smmla likewise. Included by the files of the instruction sets.
#pragma once

#include <arm_neon.h>

#include "kernels/isa/code_blocks.h"

namespace crumb::kernels {
namespace {

constexpr int kRowRegisters = 4;    // of a panel
constexpr int kMostTileTokens = 4;  // their sums fill half of the registers

/// sums + signed bytes of `codes` times columns 4 kLane ... 4 kLane + 3 of x, four neighbours a lane.
template <int kLane>
inline int32x4_t add_products(int32x4_t sums, int8x16_t codes, int8x16_t x) {
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_laneq_s32(sums, codes, x, kLane);
#else
  const int8x16_t four = vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), kLane));
  const int16x8_t low = vmull_s8(vget_low_s8(codes), vget_low_s8(four)), high = vmull_high_s8(codes, four);
  return vaddq_s32(sums, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}

/// What codes stand for, as signed bytes: of 8 bits it is less by 128, which is made up for with the sum of the
/// activations.
template <int kBits, Codes kCodes>
struct SignedLevels {
  static constexpr int kLess = kBits == 8 || kCodes == Codes::numbers ? 128 : 0;
  uint8x16_t table{};

  explicit SignedLevels(const uint8_t* levels) {
    if constexpr (kCodes == Codes::numbers) table = veorq_u8(vld1q_u8(levels), vdupq_n_u8(kLess));
  }
  /// Of one field of 16 bytes.
  template <int kField>
  int8x16_t of(uint8x16_t packed) const {
    uint8x16_t code = packed;
    if constexpr (kField > 0) code = vshrq_n_u8(code, kBits * kField);
    if constexpr (kBits * (kField + 1) < 8) code = vandq_u8(code, vdupq_n_u8((1 << kBits) - 1));
    if constexpr (kCodes == Codes::numbers) return vreinterpretq_s8_u8(vqtbl1q_u8(table, code));
    return vreinterpretq_s8_u8(veorq_u8(code, vdupq_n_u8(kLess)));
  }
};

/// One step of sum_columns: the four columns of a lane of x.
template <int kLane, int kBits, Codes kCodes, int M>
inline void add_lane(const uint8_t* codes, const SignedLevels<kBits, kCodes>& levels, const int8x16_t (&x)[M],
                     int32x4_t (&sums)[M][kRowRegisters]) {
  constexpr int kFields = 8 / kBits;
  const uint8_t* block = codes + kLane / kFields * kCodeBlockBytes;
#pragma GCC unroll 4
  for (int r = 0; r < kRowRegisters; ++r) {
    const int8x16_t level = levels.template of<kLane % kFields>(vld1q_u8(block + 16 * r));
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) sums[m][r] = add_products<kLane>(sums[m][r], level, x[m]);
  }
}

/// Codes * activations of `cols` columns; x: of token 0 at the first column. Both are zeros from `cols` to the next
/// multiple of 16. sum_x[m]: of these activations of token m.
template <int kBits, Codes kCodes, int M>
inline TileSums<M> sum_columns(const uint8_t* codes, int64_t cols, const SignedLevels<kBits, kCodes>& levels,
                               const int8_t* x, int64_t stride, const int32_t (&sum_x)[M]) {
  constexpr int kBlocks = kBits / 2;  // of 16 columns
  int32x4_t sums[M][kRowRegisters];
  for (int m = 0; m < M; ++m) {
    for (int r = 0; r < kRowRegisters; ++r) sums[m][r] = vdupq_n_s32(levels.kLess * sum_x[m]);
  }
  for (int64_t k = 0; k < cols; k += 16, codes += kBlocks * kCodeBlockBytes) {
#pragma GCC unroll 4
    for (int block = 0; block < kBlocks; ++block) __builtin_prefetch(codes + block * kCodeBlockBytes + kPrefetchBytes);
    int8x16_t sixteen[M];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) sixteen[m] = vld1q_s8(x + m * stride + k);
    add_lane<0>(codes, levels, sixteen, sums);
    add_lane<1>(codes, levels, sixteen, sums);
    add_lane<2>(codes, levels, sixteen, sums);
    add_lane<3>(codes, levels, sixteen, sums);
  }
  return TileSums<M>(sums);
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
/// The same for pairs of tokens by smmla, which multiplies two rows with two tokens, eight columns of each.
template <int kBits, Codes kCodes, int M>
inline TileSums<M> sum_columns_of_pairs(const uint8_t* codes, int64_t cols, const SignedLevels<kBits, kCodes>& levels,
                                        const int8_t* x, int64_t stride, const int32_t (&sum_x)[M]) {
  constexpr int kBlocks = kBits / 2, kFields = 8 / kBits, kPairs = M / 2;
  int32x4_t products[kPairs][kRowRegisters][2];  // of a pair and two rows: row 0 with both tokens, row 1 with both
  for (int p = 0; p < kPairs; ++p) {
    const int32x2_t first = {levels.kLess * sum_x[2 * p], levels.kLess * sum_x[2 * p + 1]};
    for (int r = 0; r < kRowRegisters; ++r) products[p][r][0] = products[p][r][1] = vcombine_s32(first, first);
  }
  for (int64_t k = 0; k < cols; k += 16, codes += kBlocks * kCodeBlockBytes) {
#pragma GCC unroll 4
    for (int block = 0; block < kBlocks; ++block) __builtin_prefetch(codes + block * kCodeBlockBytes + kPrefetchBytes);
    int8x16_t eight[kPairs][2];  // the first and the last eight columns of both tokens
#pragma GCC unroll 2
    for (int p = 0; p < kPairs; ++p) {
      const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(x + 2 * p * stride + k)),
                      b = vreinterpretq_s64_s8(vld1q_s8(x + (2 * p + 1) * stride + k));
      eight[p][0] = vreinterpretq_s8_s64(vzip1q_s64(a, b));
      eight[p][1] = vreinterpretq_s8_s64(vzip2q_s64(a, b));
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRowRegisters; ++r) {
      const auto four = [&]<int kLane>() {  // columns of four rows
        return vreinterpretq_s32_s8(
            levels.template of<kLane % kFields>(vld1q_u8(codes + kLane / kFields * kCodeBlockBytes + 16 * r)));
      };
      const int32x4_t fours[4] = {four.template operator()<0>(), four.template operator()<1>(),
                                  four.template operator()<2>(), four.template operator()<3>()};
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const int8x16_t low = vreinterpretq_s8_s32(vzip1q_s32(fours[2 * half], fours[2 * half + 1])),
                        high = vreinterpretq_s8_s32(vzip2q_s32(fours[2 * half], fours[2 * half + 1]));
#pragma GCC unroll 2
        for (int p = 0; p < kPairs; ++p) {
          products[p][r][0] = vmmlaq_s32(products[p][r][0], low, eight[p][half]);
          products[p][r][1] = vmmlaq_s32(products[p][r][1], high, eight[p][half]);
        }
      }
    }
  }
  int32x4_t sums[M][kRowRegisters];
  for (int p = 0; p < kPairs; ++p) {
    for (int r = 0; r < kRowRegisters; ++r) {
      sums[2 * p][r] = vuzp1q_s32(products[p][r][0], products[p][r][1]);
      sums[2 * p + 1][r] = vuzp2q_s32(products[p][r][0], products[p][r][1]);
    }
  }
  return TileSums<M>(sums);
}
#endif

inline void multiply_codes_int8(const Int8Tokens& x, const CodeProduct& product, int64_t begin, int64_t end) {
  with_code_form(product.matrix, [&]<int kBits, Codes kCodes>() {
    const SignedLevels<kBits, kCodes> levels(product.matrix.levels);
    for (int64_t panel = begin; panel < end; ++panel) {
      for_token_tiles<kMostTileTokens>(x.tokens, [&]<int M>(int64_t token) {
        const CodeTile tile{x, product, panel, token};
        multiply_code_tile<kBits, M>(tile, [&](const uint8_t* codes, int64_t k, int64_t segment) {
          int32_t sum_x[M];
          for (int m = 0; m < M; ++m) sum_x[m] = tile.sum(m, segment);
#if defined(__ARM_FEATURE_MATMUL_INT8)
          if constexpr (M % 2 == 0)
            return sum_columns_of_pairs<kBits, kCodes, M>(codes, x.segment_cols, levels, tile.activations(k), x.stride,
                                                          sum_x);
#endif
          return sum_columns<kBits, kCodes, M>(codes, x.segment_cols, levels, tile.activations(k), x.stride, sum_x);
        });
      });
    }
  });
}

}  // namespace
}  // namespace crumb::kernels
