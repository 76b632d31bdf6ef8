// Codes times int8 activations by vpdpbusd: kLanes rows a register, four columns a lane, sums that cannot saturate.
// Included by the files of the instruction sets.
#pragma once

#include <immintrin.h>

#include "kernels/isa/code_blocks.h"

namespace crumb::kernels {
namespace {

constexpr int kMostTileTokens = CRUMB_LANES == 16 ? 16 : 4;  // their sums fill half of the registers
constexpr int kStreamedTokens = CRUMB_LANES == 16 ? 2 : 1;   // at most: so do those of their fields

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

#if CRUMB_LANES == 16
using Register = __m512i;
inline Register dot_bytes(Register sums, Register codes, Register x) { return _mm512_dpbusd_epi32(sums, codes, x); }
inline Register look_up(Register table, Register codes) { return _mm512_shuffle_epi8(table, codes); }
/// By mask: without one GCC 12 warns of its own uninitialised register.
inline Register repeated(__m128i table) { return _mm512_maskz_broadcast_i32x4(0xffff, table); }
#else
using Register = __m256i;
inline Register dot_bytes(Register sums, Register codes, Register x) { return _mm256_dpbusd_epi32(sums, codes, x); }
inline Register look_up(Register table, Register codes) { return _mm256_shuffle_epi8(table, codes); }
inline Register repeated(__m128i table) { return _mm256_broadcastsi128_si256(table); }
#endif

/// sums + unsigned bytes of `codes` times signed bytes of `x`, four neighbours a lane.
inline VecInt add_products(VecInt sums, VecUnsigned codes, VecInt x) {
  return __builtin_bit_cast(VecInt, dot_bytes(__builtin_bit_cast(Register, sums), __builtin_bit_cast(Register, codes),
                                              __builtin_bit_cast(Register, x)));
}

/// The lowest field of every byte.
template <int kBits>
constexpr uint32_t kFieldMask = 0x01010101u * ((1u << kBits) - 1);

/// Codes * activations of `blocks` blocks; column k is the first of the blocks. levels: of numbers.
template <int kBits, Codes kCodes, int M>
__attribute__((always_inline)) inline TileSums<M> sum_blocks(const uint8_t* codes, int64_t blocks,
                                                             const uint8_t* levels, const TileTokens<M>& x, int64_t k) {
  constexpr int kFields = 8 / kBits;
  Register table;
  if constexpr (kCodes == Codes::numbers) table = repeated(_mm_loadu_si128(reinterpret_cast<const __m128i*>(levels)));
  VecInt sums[M][kPanelVectors];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
    for (int64_t v = 0; v < kPanelVectors; ++v) sums[m][v] = VecInt{};
  }
  for (int64_t block = 0; block < blocks; ++block, codes += kCodeBlockBytes, k += 4 * kFields) {
    _mm_prefetch(reinterpret_cast<const char*>(codes) + kPrefetchBytes, _MM_HINT_T0);
#pragma GCC unroll 4
    for (int field = 0; field < kFields; ++field) {
      VecUnsigned code[kPanelVectors];
#pragma GCC unroll 2
      for (int64_t v = 0; v < kPanelVectors; ++v) {
        code[v] = load_bits(codes + 4 * v * kLanes) >> (kBits * field) & kFieldMask<kBits>;
        if constexpr (kCodes == Codes::numbers)
          code[v] = __builtin_bit_cast(VecUnsigned, look_up(table, __builtin_bit_cast(Register, code[v])));
      }
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const VecInt four = x.four(m, k + 4 * field);
#pragma GCC unroll 2
        for (int64_t v = 0; v < kPanelVectors; ++v) sums[m][v] = add_products(sums[m][v], code[v], four);
      }
    }
  }
  return TileSums<M>(sums);
}

/// The same for few tokens, whose time is that of reading the codes: fields stay where they are, 2^(bits field) times
/// too large, with sums of their own. A byte is at most 255 still, so the bound of kMostCodeCols holds.
template <int kBits, int M>
__attribute__((always_inline)) inline TileSums<M> sum_streamed_blocks(const uint8_t* codes, int64_t blocks,
                                                                      const TileTokens<M>& x, int64_t k) {
  constexpr int kFields = 8 / kBits;
  VecInt parts[kFields][M][kPanelVectors];
#pragma GCC unroll 4
  for (int field = 0; field < kFields; ++field) {
#pragma GCC unroll 2
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
      for (int64_t v = 0; v < kPanelVectors; ++v) parts[field][m][v] = VecInt{};
    }
  }
  for (int64_t block = 0; block < blocks; ++block, codes += kCodeBlockBytes, k += 4 * kFields) {
    _mm_prefetch(reinterpret_cast<const char*>(codes) + kPrefetchBytes, _MM_HINT_T0);
#pragma GCC unroll 4
    for (int field = 0; field < kFields; ++field) {
#pragma GCC unroll 2
      for (int m = 0; m < M; ++m) {
        const VecInt four = x.four(m, k + 4 * field);
#pragma GCC unroll 2
        for (int64_t v = 0; v < kPanelVectors; ++v) {
          const VecUnsigned code = load_bits(codes + 4 * v * kLanes) & (kFieldMask<kBits> << (kBits * field));
          parts[field][m][v] = add_products(parts[field][m][v], code, four);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int field = 1; field < kFields; ++field) {
#pragma GCC unroll 2
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
      for (int64_t v = 0; v < kPanelVectors; ++v) parts[0][m][v] += parts[field][m][v] >> (kBits * field);
    }
  }
  return TileSums<M>(parts[0]);
}

inline void multiply_codes_int8(const Int8Tokens& x, const CodeProduct& product, int64_t begin, int64_t end) {
  with_code_form(product.matrix, [&]<int kBits, Codes kCodes>() {
    const int64_t blocks = blocks_of(x.segment_cols, kBits);
    for (int64_t panel = begin; panel < end; ++panel) {
      for_token_tiles<kMostTileTokens>(x.tokens, [&]<int M>(int64_t token) {
        const CodeTile tile{x, product, panel, token};
        const TileTokens<M> tokens(tile.activations(0), x.stride);
        multiply_code_tile<kBits, M>(tile, [&](const uint8_t* codes, int64_t k, int64_t /*segment*/) {
          if constexpr (M <= kStreamedTokens && kCodes == Codes::levels)
            return sum_streamed_blocks<kBits, M>(codes, blocks, tokens, k);
          else
            return sum_blocks<kBits, kCodes, M>(codes, blocks, product.matrix.levels, tokens, k);
        });
      });
    }
  });
}

}  // namespace
}  // namespace crumb::kernels
