// Codes times int8 activations of many tokens by AMX: 16 tokens, 16 rows and 64 columns an instruction. Few tokens, and
// segments that are no multiple of 64 columns, are left to vpdpbusd. Included by the files of the instruction sets.
//
// A tile of codes has in row i columns 4 i ... 4 i + 3 of the panel's rows, which is how blocks lie once their fields
// are taken apart. That is done once for two panels, some columns and kAmxTokens tokens. Tiles is AmxTiles, or what
// stands in for it in tests.
#pragma once

#include "kernels/isa/code_matmul_vnni.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kAmxTokens = 128;  // whose sums and results stay in the nearest cache
constexpr int64_t kAmxCols = 1024;   // taken apart at once
constexpr int64_t kTileTokens = 16, kTileDepth = 64;
constexpr int64_t kTileBytes = 1024;

struct AmxScratch {
  alignas(64) uint8_t levels[2][kAmxCols * kCodePanelRows];               // of two panels
  alignas(64) int32_t sums[kAmxTokens / kTileTokens][2][kTileBytes / 4];  // [token, row] of a tile and a panel
  alignas(64) float y[kAmxTokens][2][kCodePanelRows];
};

/// Levels of `cols` columns, four neighbours of every row after the other.
template <int kBits, Codes kCodes>
inline void unpack_levels(const uint8_t* codes, int64_t cols, const uint8_t* numbered, uint8_t* levels) {
  constexpr int kFields = 8 / kBits;
  Register table;
  if constexpr (kCodes == Codes::numbers) table = repeated(_mm_loadu_si128(reinterpret_cast<const __m128i*>(numbered)));
  for (int64_t block = 0; block < blocks_of(cols, kBits); ++block, codes += kCodeBlockBytes) {
    _mm_prefetch(reinterpret_cast<const char*>(codes) + kPrefetchBytes, _MM_HINT_T0);
    const VecUnsigned packed = load_bits(codes);
#pragma GCC unroll 4
    for (int field = 0; field < kFields; ++field, levels += kCodeBlockBytes) {
      VecUnsigned level = packed >> (kBits * field) & kFieldMask<kBits>;
      if constexpr (kCodes == Codes::numbers)
        level = __builtin_bit_cast(VecUnsigned, look_up(table, __builtin_bit_cast(Register, level)));
      __builtin_memcpy(levels, &level, sizeof level);
    }
  }
}

/// sums[a][p] = (add: +=) activations of tile a of tokens, at x[a], times the levels of panel p, over `cols` columns.
/// Beyond the last column of a row, to the next multiple of 64, activations are zeros, so levels may be anything.
template <int A, int P, class Tiles>
inline void multiply_tiles(Tiles& tiles, const int8_t* const (&x)[A], int64_t stride, const AmxScratch& scratch,
                           int64_t cols, bool add, int32_t (*sums)[2][kTileBytes / 4]) {
  const auto for_sums = [&](const auto& body) {
    body.template operator()<0, 0, 0>();
    if constexpr (P > 1) body.template operator()<1, 0, 1>();
    if constexpr (A > 1) body.template operator()<2, 1, 0>();
    if constexpr (A > 1 && P > 1) body.template operator()<3, 1, 1>();
  };
  for_sums([&]<int kTile, int a, int p>() {
    if (add)
      tiles.template load<kTile>(sums[a][p], 64);
    else
      tiles.template zero<kTile>();
  });
  for (int64_t k = 0; k < cols; k += kTileDepth) {
    tiles.template load<4>(x[0] + k, stride);
    if constexpr (A > 1) tiles.template load<5>(x[A - 1] + k, stride);
    tiles.template load<6>(scratch.levels[0] + k * kCodePanelRows, 64);
    if constexpr (P > 1) tiles.template load<7>(scratch.levels[1] + k * kCodePanelRows, 64);
    for_sums([&]<int kTile, int a, int p>() { tiles.template add_products<kTile, 4 + a, 6 + p>(); });
  }
  for_sums([&]<int kTile, int a, int p>() { tiles.template store<kTile>(sums[a][p], 64); });
}

/// Tokens [first, last) times P panels.
template <int kBits, Codes kCodes, int P, class Tiles>
inline void multiply_panels(Tiles& tiles, const Int8Tokens& x, const CodeProduct& product, int64_t panel, int64_t first,
                            int64_t last, AmxScratch& scratch) {
  const CodeMatrix& matrix = product.matrix;
  for (int64_t p = 0; p < P; ++p) {
    const CodeTile tile{x, product, panel + p, first};
    const Vec start = tile.bias(0);
    for (int64_t t = first; t < last; ++t) store(scratch.y[t - first][p], start);
  }

  // The last tile of tokens may begin before `token`, with tokens that the one before had.
  const auto multiply_tokens = [&]<int A>(int64_t token, int64_t segment, int64_t k, int64_t cols, bool whole) {
    const bool begins = k == 0, ends = k + cols == x.segment_cols;
    int32_t(*const sums)[2][kTileBytes / 4] = scratch.sums + (whole ? 0 : (token - first) / kTileTokens);
    const int8_t* rows[A];
    for (int64_t a = 0; a < A; ++a)
      rows[a] =
          x.codes + min_of(token + a * kTileTokens, x.tokens - kTileTokens) * x.stride + segment * x.segment_cols + k;
    multiply_tiles<A, P>(tiles, rows, x.stride, scratch, cols, !begins, sums);
    if (!ends) return;
    for (int64_t p = 0; p < P; ++p) {
      const SegmentRows of_rows(matrix, CodeTile{x, product, panel + p, first}.scales_at(segment));
      for (int64_t a = 0; a < A; ++a) {
        const CodeTile tile{x, product, panel + p, min_of(token + a * kTileTokens, x.tokens - kTileTokens)};
        for (auto m = static_cast<int>(token + a * kTileTokens - tile.token); m < kTileTokens; ++m) {
          float* const y = scratch.y[tile.token + m - first][p];
          const auto sum = __builtin_bit_cast(VecInt, load_bits(sums[a][p] + m * kCodePanelRows));
          store(y, of_rows.add(load(y), sum, tile.sum(m, segment), tile.scale(m, segment)));
        }
      }
    }
  };

  for (int64_t segment = 0; segment < x.cols / x.segment_cols; ++segment) {
    for (int64_t k = 0; k < x.segment_cols; k += kAmxCols) {
      const int64_t cols = min_of(kAmxCols, x.segment_cols - k);
      for (int64_t p = 0; p < P; ++p) {
        const uint8_t* codes = CodeTile{x, product, panel + p, first}.codes();
        codes += blocks_of(segment * x.segment_cols + k, kBits) * kCodeBlockBytes;
        unpack_levels<kBits, kCodes>(codes, cols, matrix.levels, scratch.levels[p]);
      }
      const bool whole = cols == x.segment_cols;
      for (int64_t token = first; token < last; token += 2 * kTileTokens) {
        if (token + kTileTokens < last)
          multiply_tokens.template operator()<2>(token, segment, k, cols, whole);
        else
          multiply_tokens.template operator()<1>(token, segment, k, cols, whole);
      }
    }
  }

  for (int64_t p = 0; p < P; ++p) {
    for (int64_t t = first; t < last; ++t) {
      const CodeTile tile{x, product, panel + p, t};
      store(tile.y(0), load(scratch.y[t - first][p]), tile.rows());
    }
  }
}

template <class Tiles>
inline void multiply_codes_by_tiles(const Int8Tokens& x, const CodeProduct& product, int64_t begin, int64_t end) {
  // A tile may reach beyond its segment only where zeros follow: at the end of a row.
  const bool has_tiles = x.segment_cols % kTileDepth == 0 || (x.segment_cols == x.cols && x.cols > kTileDepth);
  if (x.tokens < kTileTokens || !has_tiles) return multiply_codes_int8(x, product, begin, end);
  with_code_form(product.matrix, [&]<int kBits, Codes kCodes>() {
    AmxScratch scratch;
    Tiles tiles;
    tiles.start();
    const int64_t parts = (x.tokens + kAmxTokens - 1) / kAmxTokens, pair = 2 * kTileTokens;
    const int64_t part = ((x.tokens + parts - 1) / parts + pair - 1) / pair * pair;  // about equal, of whole tiles
    for (int64_t panel = begin; panel < end; panel += 2) {
      for (int64_t first = 0; first < x.tokens; first += part) {
        const int64_t last = min_of(first + part, x.tokens);
        if (panel + 1 < end)
          multiply_panels<kBits, kCodes, 2>(tiles, x, product, panel, first, last, scratch);
        else
          multiply_panels<kBits, kCodes, 1>(tiles, x, product, panel, first, last, scratch);
      }
    }
    tiles.stop();
  });
}

}  // namespace
}  // namespace crumb::kernels
