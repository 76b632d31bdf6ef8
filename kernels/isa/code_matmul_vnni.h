// Codes times int8 activations by vpdpbusd: 16 rows a register, four columns a lane, sums that cannot saturate.
// Included by the files of the instruction sets.
#pragma once

#include <immintrin.h>

#include "kernels/isa/code_blocks.h"

namespace crumb::kernels {
namespace {

constexpr int kMostTileTokens = 16;  // their sums fill half of the registers

template <int M>
struct TileTokens {
  const int8_t* rows[(M + 2) / 3];  // every third token: an address reaches two more without arithmetic
  int64_t stride;

  TileTokens(const int8_t* first, int64_t stride_) : stride(stride_) {
#pragma GCC unroll 6
    for (int i = 0; i < (M + 2) / 3; ++i) rows[i] = first + 3 * i * stride_;
  }
  /// Activations of columns k ... k + 3 in every lane.
  VecInt four(int m, int64_t k) const {
    int32_t bytes;
    __builtin_memcpy(&bytes, rows[m / 3] + m % 3 * stride + k, 4);
    return VecInt{} + bytes;
  }
};

/// sums + unsigned bytes of `codes` times signed bytes of `x`, four neighbours a lane.
inline VecInt add_products(VecInt sums, VecUnsigned codes, VecInt x) {
  return __builtin_bit_cast(VecInt,
                            _mm512_dpbusd_epi32(__builtin_bit_cast(__m512i, sums), __builtin_bit_cast(__m512i, codes),
                                                __builtin_bit_cast(__m512i, x)));
}

/// The lowest field of every byte.
template <int kBits>
constexpr uint32_t kFieldMask = 0x01010101u * ((1u << kBits) - 1);

/// sums[m] += codes * activations of `blocks` blocks; column 0 is the first of the blocks. levels: of numbers.
template <int kBits, Codes kCodes, int M>
inline void add_blocks(const uint8_t* codes, int64_t blocks, const uint8_t* levels, const TileTokens<M>& x, int64_t k,
                       VecInt (&sums)[M]) {
  constexpr int kFields = 8 / kBits;
  __m512i table;
  if constexpr (kCodes == Codes::numbers)
    table = _mm512_maskz_broadcast_i32x4(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(levels)));
  for (int64_t block = 0; block < blocks; ++block, codes += kCodeBlockBytes, k += 4 * kFields) {
    _mm_prefetch(reinterpret_cast<const char*>(codes) + kPrefetchBytes, _MM_HINT_T0);
    const VecUnsigned packed = load_bits(codes);
#pragma GCC unroll 4
    for (int field = 0; field < kFields; ++field) {
      VecUnsigned code = packed >> (kBits * field) & kFieldMask<kBits>;
      if constexpr (kCodes == Codes::numbers)
        code = __builtin_bit_cast(VecUnsigned, _mm512_shuffle_epi8(table, __builtin_bit_cast(__m512i, code)));
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) sums[m] = add_products(sums[m], code, x.four(m, k + 4 * field));
    }
  }
}

/// The same for few tokens, whose time is that of reading the codes: fields stay where they are, 2^(bits field) times
/// too large, with sums of their own. A byte is at most 255 still, so the bound of kMostCodeCols holds.
template <int kBits, int M>
inline void add_streamed_blocks(const uint8_t* codes, int64_t blocks, const TileTokens<M>& x, int64_t k,
                                VecInt (&sums)[M]) {
  constexpr int kFields = 8 / kBits;
  VecInt parts[kFields][M];
#pragma GCC unroll 4
  for (int field = 0; field < kFields; ++field) {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) parts[field][m] = VecInt{};
  }
  for (int64_t block = 0; block < blocks; ++block, codes += kCodeBlockBytes, k += 4 * kFields) {
    _mm_prefetch(reinterpret_cast<const char*>(codes) + kPrefetchBytes, _MM_HINT_T0);
    const VecUnsigned packed = load_bits(codes);
#pragma GCC unroll 4
    for (int field = 0; field < kFields; ++field) {
      const VecUnsigned code = packed & (kFieldMask<kBits> << (kBits * field));
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) parts[field][m] = add_products(parts[field][m], code, x.four(m, k + 4 * field));
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int field = 0; field < kFields; ++field) sums[m] += parts[field][m] >> (kBits * field);
  }
}

template <int kBits, Codes kCodes, int M>
inline void multiply_code_tile(const CodeTile& tile) {
  const CodeMatrix& matrix = tile.matrix();
  const Int8Tokens& x = tile.x;
  const auto rows = static_cast<__mmask16>((1u << tile.rows()) - 1);
  const float* bias = tile.product.bias == nullptr ? nullptr : tile.product.bias + tile.panel * kCodePanelRows;
  const TileTokens<M> tokens(x.codes + tile.token * x.stride, x.stride);
  const int64_t blocks = blocks_of(x.segment_cols, kBits);
  const uint8_t* codes = tile.codes();
  __m512 y[M];
  for (int m = 0; m < M; ++m) y[m] = bias == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(rows, bias);
  const int doubled = matrix.step - 1;
  for (int64_t segment = 0; segment < tile.segments(); ++segment, codes += blocks * kCodeBlockBytes) {
    VecInt sums[M];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) sums[m] = VecInt{};
    if constexpr (M <= 2 && kCodes == Codes::levels)
      add_streamed_blocks<kBits, M>(codes, blocks, tokens, segment * x.segment_cols, sums);
    else
      add_blocks<kBits, kCodes, M>(codes, blocks, matrix.levels, tokens, segment * x.segment_cols, sums);
    const int64_t at = tile.scales_at(segment);
    const Vec scales = load(matrix.scales + at);
    const VecInt zeros =
        matrix.zeros == nullptr ? VecInt{} + matrix.zero : __builtin_bit_cast(VecInt, load_bits(matrix.zeros + at));
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const VecInt whole = (sums[m] << doubled) - zeros * tile.sum(m, segment);
      y[m] = _mm512_fmadd_ps(__builtin_convertvector(whole, Vec), scales * tile.scale(m, segment), y[m]);
    }
    if (matrix.minima == nullptr) continue;
    const Vec minima = load(matrix.minima + at);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const Vec sum = broadcast(static_cast<float>(tile.sum(m, segment)));
      y[m] = _mm512_fmadd_ps(sum, minima * tile.scale(m, segment), y[m]);
    }
  }
  for (int m = 0; m < M; ++m) _mm512_mask_storeu_ps(tile.y(m), rows, y[m]);
}

inline void multiply_codes_int8(const Int8Tokens& x, const CodeProduct& product, int64_t begin, int64_t end) {
  with_code_form(product.matrix, [&]<int kBits, Codes kCodes>() {
    for (int64_t panel = begin; panel < end; ++panel) {
      for_token_tiles<kMostTileTokens>(x.tokens, [&]<int M>(int64_t token) {
        multiply_code_tile<kBits, kCodes, M>({x, product, panel, token});
      });
    }
  });
}

}  // namespace
}  // namespace crumb::kernels
