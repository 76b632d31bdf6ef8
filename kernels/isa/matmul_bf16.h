// Products of bfloat16 by vdpbf16ps, which adds the products of two neighbouring columns at once; included by the files
// of the instruction sets that have it. Tiles, and the blocks of columns whose sums are added, are those of
// kernels/isa/matmul.h; every value is made by the same operations whatever tile it lies in.
#pragma once

#include <immintrin.h>

#include "kernels/isa/code_blocks.h"
#include "kernels/isa/matmul.h"

namespace crumb::kernels {
namespace {

static_assert(kLanes == 16 && kCodePanelRows == kLanes);

inline VecUnsigned bits_of(__m512i v) { return __builtin_bit_cast(VecUnsigned, v); }
inline __m512i register_of(VecUnsigned v) { return __builtin_bit_cast(__m512i, v); }

/// sums + products of the pairs in every lane, each two rounded by the instruction's rule: to nearest, without
/// subnormals.
inline Vec add_pairs(Vec sums, VecUnsigned weights, VecUnsigned x) {
  return __builtin_bit_cast(Vec, _mm512_dpbf16_ps(__builtin_bit_cast(__m512, sums), (__m512bh)register_of(weights),
                                                  (__m512bh)register_of(x)));
}

/// A panel as pack_narrow_weight_rows leaves it: [depth][kTileCols]. Interleaving two columns within each 128 bits
/// gives pairs of rows in another order, which sums are brought out of.
struct StoredPairs {
  const Bf16* panel;
  int64_t depth;

  void load(int64_t step, VecUnsigned (&pairs)[2]) const {
    const Bf16* at = panel + 2 * step * kTileCols;
    interleave(_mm512_loadu_si512(at), _mm512_loadu_si512(at + kTileCols), pairs);
  }
  /// Of an odd depth.
  void load_last(VecUnsigned (&pairs)[2]) const {
    interleave(_mm512_loadu_si512(panel + (depth - 1) * kTileCols), __m512i{}, pairs);
  }
  static void order(Vec (&sums)[2]) {
    const Vec left = sums[0], right = sums[1];
    sums[0] = __builtin_shufflevector(left, right, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    sums[1] = __builtin_shufflevector(left, right, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  }
  void prefetch(int64_t step) const {
    const char* at = reinterpret_cast<const char*>(panel + 2 * step * kTileCols) + kPrefetchBytes;
    _mm_prefetch(at, _MM_HINT_T0);
    _mm_prefetch(at + 64, _MM_HINT_T0);
  }

 private:
  static void interleave(__m512i even, __m512i odd, VecUnsigned (&pairs)[2]) {
    pairs[0] = bits_of(_mm512_unpacklo_epi16(even, odd));
    pairs[1] = bits_of(_mm512_unpackhi_epi16(even, odd));
  }
};

/// Pairs of kTileCols rows made of codes: [depth / 2][kTileCols], an even depth.
struct MadePairs {
  const uint32_t* panel;
  int64_t depth;

  void load(int64_t step, VecUnsigned (&pairs)[2]) const {
    pairs[0] = load_bits(panel + step * kTileCols);
    pairs[1] = load_bits(panel + step * kTileCols + kLanes);
  }
  void load_last(VecUnsigned (&)[2]) const {}
  static void order(Vec (&)[2]) {}
  void prefetch(int64_t) const {}
};

/// take(m, sums of the two halves of the rows) for M tokens.
template <int M, class Pairs, class Take>
inline void multiply_pairs_tile(const Pairs& pairs, const Bf16* x, int64_t stride, const Take& take) {
  Vec sums[M][2];
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) sums[m][0] = sums[m][1] = broadcast(0);
  const TileRows<M, Bf16> rows(x, stride);
  VecUnsigned weights[2];
  const auto add = [&](int64_t step) {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      uint32_t pair;
      __builtin_memcpy(&pair, rows.at(m, 2 * step), sizeof pair);
      const VecUnsigned value = VecUnsigned{} + pair;
      sums[m][0] = add_pairs(sums[m][0], weights[0], value);
      sums[m][1] = add_pairs(sums[m][1], weights[1], value);
    }
  };
  const int64_t steps = pairs.depth / 2;
  for (int64_t step = 0; step < steps; ++step) {
    if constexpr (M == 1) pairs.prefetch(step);
    pairs.load(step, weights);
    add(step);
  }
  if (pairs.depth % 2 != 0) {
    pairs.load_last(weights);
    add(steps);
  }
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) {
    Vec ordered[2] = {sums[m][0], sums[m][1]};  // a copy: of what others see compilers keep nothing in registers
    Pairs::order(ordered);
    take(m, ordered);
  }
}

/// take(token, sums of the two halves of the rows) for all tokens, from column k on.
template <class Pairs, class Take>
inline void multiply_pairs(const Pairs& pairs, const Bf16Tokens& x, int64_t k, const Take& take) {
  int64_t t = 0;
  const auto tile = [&]<int M>() {
    multiply_pairs_tile<M>(pairs, x.values + t * x.stride + k, x.stride,
                           [&](int m, const Vec(&sums)[2]) { take(t + m, sums); });
    t += M;
  };
  while (t + kTileRows <= x.tokens) tile.template operator()<kTileRows>();
  if (t + kTileRows / 2 <= x.tokens) tile.template operator()<kTileRows / 2>();
  if (t + 4 <= x.tokens) tile.template operator()<4>();
  if (t + 3 <= x.tokens) tile.template operator()<3>();
  while (t < x.tokens) tile.template operator()<1>();
}

/// The halves of a tile's rows: where there are any, biases, results.
struct TileRowsOf {
  int64_t counts[2];
  Vec bias[2] = {broadcast(0), broadcast(0)};

  TileRowsOf(const float* all_bias, int64_t row, int64_t last)
      : counts{min_of(kLanes, last - row), max_of(0, min_of(kLanes, last - row - kLanes))} {
    if (all_bias == nullptr) return;
    for (int half = 0; half < 2; ++half)
      bias[half] = crumb::kernels::load(all_bias + row + half * kLanes, counts[half], 0);
  }
  /// y = body(half, y so far)
  template <class Body>
  void update(float* y, bool is_first, const Body& body) const {
    for (int half = 0; half < 2; ++half) {
      float* out = y + half * kLanes;
      const Vec before = is_first ? bias[half] : crumb::kernels::load(out, counts[half], 0);
      store(out, body(half, before), counts[half]);
    }
  }
};

/// Rows [begin, end) of a.w_bf16 times x, which is rounded a.x.
inline void matmul_bf16_rows(const Bf16Tokens& x, const MatmulArguments& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; row += kTileCols) {
    const TileRowsOf rows(a.bias, row, end);
    for (int64_t k = 0; k < a.cols; k += kDepth) {
      const StoredPairs pairs{a.w_bf16 + row * a.cols + k * kTileCols, min_of(kDepth, a.cols - k)};
      multiply_pairs(pairs, x, k, [&](int64_t token, const Vec(&sums)[2]) {
        rows.update(a.y + token * a.y_stride + row, k == 0, [&](int half, Vec before) { return before + sums[half]; });
      });
    }
  }
}

/// Levels of codes less the zero that all weights have, as bfloat16, which holds integers up to 256.
template <int kBits, Codes kCodes>
class PairLevels {
 public:
  explicit PairLevels(const CodeMatrix& m) : step_(m.step), zero_(m.zeros == nullptr ? m.zero : 0) {
    if constexpr (kBits <= 4) {
      uint16_t words[32] = {};
      for (int code = 0; code < 1 << kBits; ++code) {
        const int level = kCodes == Codes::numbers ? m.levels[code] : m.step * code;
        words[code] = static_cast<uint16_t>(__builtin_bit_cast(uint32_t, static_cast<float>(level - zero_)) >> 16);
      }
      table_ = _mm512_loadu_si512(words);
    }
  }
  /// Codes in the low bytes of words.
  VecUnsigned of(__m512i codes) const {
    if constexpr (kBits <= 4) {
      return bits_of(_mm512_maskz_permutexvar_epi16(0xFFFFFFFF, codes, table_));
    } else {
      const VecUnsigned pairs = bits_of(codes);
      return (float_bits(pairs & 0xFFFF) >> 16) | (float_bits(pairs >> 16) & 0xFFFF0000);
    }
  }

 private:
  VecUnsigned float_bits(VecUnsigned codes) const {
    const VecInt level = __builtin_bit_cast(VecInt, codes) * step_ - zero_;
    return __builtin_bit_cast(VecUnsigned, __builtin_convertvector(level, Vec));
  }
  __m512i table_{};
  int step_, zero_;
};

/// take(step of the block, pair of columns 2 step, 2 step + 1 of the 16 rows) for all columns of a block of codes.
template <int kBits, Codes kCodes, class Take>
__attribute__((always_inline)) inline void for_each_pair(const uint8_t* block, const PairLevels<kBits, kCodes>& levels,
                                                         const Take& take) {
  constexpr int kLow = static_cast<int>(0x80018000), kHigh = static_cast<int>(0x80038002);  // of four bytes, as words
  const __m512i lanes = _mm512_set_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0, 0x0C0C0C0C, 0x08080808, 0x04040404, 0,
                                         0x0C0C0C0C, 0x08080808, 0x04040404, 0, 0x0C0C0C0C, 0x08080808, 0x04040404, 0);
  const __m512i low_bytes = _mm512_or_si512(_mm512_set1_epi32(kLow), lanes),
                high_bytes = _mm512_or_si512(_mm512_set1_epi32(kHigh), lanes);
  const VecUnsigned packed = load_bits(block);
#pragma GCC unroll 4
  for (int field = 0; field < 8 / kBits; ++field) {
    VecUnsigned code = packed >> (kBits * field);
    if constexpr (kBits < 8) code &= 0x01010101u * ((1u << kBits) - 1);
    take(2 * field, levels.of(_mm512_shuffle_epi8(register_of(code), low_bytes)));
    take(2 * field + 1, levels.of(_mm512_shuffle_epi8(register_of(code), high_bytes)));
  }
}

/// The first block of codes of a panel from column `first` on.
inline const uint8_t* codes_at(const CodeMatrix& m, int64_t row, int64_t first) {
  return m.codes + row / kCodePanelRows * panel_bytes_of(m) + blocks_of(first, m.bits) * kCodeBlockBytes;
}

/// Columns [first, first + depth) of kTileCols rows from `row` on, as MadePairs has them; whole blocks are made.
template <int kBits, Codes kCodes>
inline void make_pairs(const CodeMatrix& m, const PairLevels<kBits, kCodes>& levels, int64_t row, int64_t first,
                       int64_t depth, uint32_t* panel) {
  constexpr int64_t kSteps = 16 / kBits;  // of a block
  for (int64_t at = 0; at < kTileCols; at += kLanes) {
    uint32_t* out = panel + at;
    if (row + at >= m.rows) {
      for (int64_t step = 0; step < (depth + 1) / 2; ++step) __builtin_memset(out + step * kTileCols, 0, 64);
      continue;
    }
    const uint8_t* codes = codes_at(m, row + at, first);
    for (int64_t block = 0; block < blocks_of(depth, kBits); ++block, out += kSteps * kTileCols) {
      for_each_pair(codes + block * kCodeBlockBytes, levels,
                    [&](int step, VecUnsigned pair) { __builtin_memcpy(out + step * kTileCols, &pair, sizeof pair); });
    }
  }
}

/// The sums of multiply_pairs_tile for one token, without a panel between.
template <int kBits, Codes kCodes>
inline void multiply_token(const CodeMatrix& m, const PairLevels<kBits, kCodes>& levels, int64_t row, int64_t first,
                           int64_t depth, const Bf16* x, Vec (&sums)[2]) {
  constexpr int64_t kSteps = 16 / kBits;
  const bool has_right = row + kLanes < m.rows;
  const uint8_t* left = codes_at(m, row, first);
  const uint8_t* right = has_right ? codes_at(m, row + kLanes, first) : left;
  Vec of_left = broadcast(0), of_right = broadcast(0);
  for (int64_t block = 0; block < blocks_of(depth, kBits); ++block) {
    const auto add_to = [&](Vec& sum) {
      return [&sum, from = x + block * 2 * kSteps](int step, VecUnsigned pair) {
        uint32_t two;
        __builtin_memcpy(&two, from + 2 * step, sizeof two);
        sum = add_pairs(sum, pair, VecUnsigned{} + two);
      };
    };
    const int64_t at = block * kCodeBlockBytes;
    _mm_prefetch(reinterpret_cast<const char*>(left) + at + kPrefetchBytes, _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(right) + at + kPrefetchBytes, _MM_HINT_T0);
    for_each_pair(left + at, levels, add_to(of_left));
    for_each_pair(right + at, levels, add_to(of_right));
  }
  sums[0] = of_left;
  sums[1] = has_right ? of_right : broadcast(0);
}

/// Of the two halves of a tile's rows and one group: what turns sums into results.
struct PairRows {
  Vec scales[2], zeros[2], minima[2];
  bool has_zeros, has_minima;

  PairRows(const CodeMatrix& m, int64_t row, int64_t group)
      : has_zeros(m.zeros != nullptr), has_minima(m.minima != nullptr) {
    for (int half = 0; half < 2; ++half) {
      scales[half] = zeros[half] = minima[half] = broadcast(0);
      const int64_t panel = row / kCodePanelRows + half;
      if (panel >= m.panels()) continue;
      const int64_t at = first_scale_of(m, panel, group);
      scales[half] = load(m.scales + at);
      if (has_zeros) zeros[half] = __builtin_convertvector(__builtin_bit_cast(VecInt, load_bits(m.zeros + at)), Vec);
      if (has_minima) minima[half] = load(m.minima + at);
    }
  }
  Vec add(Vec y, int half, Vec sum, float sum_x) const {
    if (has_zeros) sum -= zeros[half] * sum_x;
    y = fused(sum, scales[half], y);
    return has_minima ? fused(broadcast(sum_x), minima[half], y) : y;
  }
};

inline float sum_of(const Bf16* x, int64_t n) {
  Vec sums = broadcast(0);
  for_each_vector(n, [&](int64_t i, int64_t count) { sums += load(x + i, count, 0); });
  return sum(sums);
}

template <int kBits, Codes kCodes>
inline void multiply_codes_bf16_of_width(const Bf16Tokens& x, const CodeProduct& product, int64_t begin, int64_t end,
                                         uint32_t* panel) {
  const CodeMatrix& m = product.matrix;
  const PairLevels<kBits, kCodes> levels(m);
  const bool needs_sums = m.zeros != nullptr || m.minima != nullptr;
  const int64_t last = min_of(end * kCodePanelRows, m.rows);
  for (int64_t row = begin * kCodePanelRows; row < last; row += kTileCols) {
    const TileRowsOf rows(product.bias, row, last);
    for (int64_t group = 0; group < m.groups(); ++group) {
      const PairRows of_group(m, row, group);
      const int64_t group_end = (group + 1) * m.group_cols;
      for (int64_t k = group * m.group_cols; k < group_end; k += kDepth) {
        const int64_t depth = min_of(kDepth, group_end - k);
        const auto take = [&](int64_t token, const Vec(&sums)[2]) {
          const float sum_x = needs_sums ? sum_of(x.values + token * x.stride + k, depth) : 0;
          rows.update(product.y + token * m.rows + row, k == 0,
                      [&](int half, Vec before) { return of_group.add(before, half, sums[half], sum_x); });
        };
        if (x.tokens == 1) {
          Vec sums[2];
          multiply_token(m, levels, row, k, depth, x.values + k, sums);
          take(0, sums);
        } else {
          make_pairs(m, levels, row, k, depth, panel);
          multiply_pairs(MadePairs{panel, (depth + 1) / 2 * 2}, x, k, take);
        }
      }
    }
  }
}

inline void multiply_codes_bf16(const Bf16Tokens& x, const CodeProduct& product, int64_t begin, int64_t end,
                                float* scratch) {
  static_assert(kDepth / 2 * kTileCols <= kMatmulScratch);
  with_code_form(product.matrix, [&]<int kBits, Codes kCodes>() {
    multiply_codes_bf16_of_width<kBits, kCodes>(x, product, begin, end, reinterpret_cast<uint32_t*>(scratch));
  });
}

constexpr KernelTable with_bf16_products(KernelTable table) {
  table.matmul_bf16 = matmul_bf16_rows;
  table.code_matmul_bf16 = multiply_codes_bf16;
  return table;
}

}  // namespace
}  // namespace crumb::kernels
