// The matrix product on vectors; included by the files of the instruction sets.
//
// A tile of y, kTileRows tokens by kTileCols rows of W, stays in registers while k runs over a block of kDepth: each
// step multiplies one value of each token with two vectors of W, which lie side by side in a panel that is packed once
// for all tokens. Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008. Every value of y is
// made by the same operations whatever tile it lies in, so a token's result does not depend on the others.
#pragma once

#include "kernels/isa/table.h"
#include "kernels/isa/vector.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kTileCols = 2 * kLanes;
constexpr int kTileRows = kLanes == 16 ? 12 : 6;  // their sums fill most of the registers
constexpr int64_t kDepth = 256;                   // a panel of it stays in the first-level cache
static_assert(kPanelRows % kTileCols == 0 && kTileCols * kDepth <= kMatmulScratch);
static_assert(kTileCols * kKeysPerBlock <= kMatmulScratch);

#if CRUMB_LANES == 16
inline Vec interleave_low(Vec a, Vec b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
inline Vec interleave_high(Vec a, Vec b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#else
inline Vec interleave_low(Vec a, Vec b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
inline Vec interleave_high(Vec a, Vec b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
#endif

/// a[i][j] becomes a[j][i]. A step turns the bits of the index (i, j) by one place; as many steps as i has bits.
inline void transpose(Vec (&a)[kLanes]) {
#pragma GCC unroll 4
  for (int64_t step = 1; step < kLanes; step *= 2) {
    Vec b[kLanes];
#pragma GCC unroll 8
    for (int64_t i = 0; i < kLanes / 2; ++i) {
      b[2 * i] = interleave_low(a[i], a[i + kLanes / 2]);
      b[2 * i + 1] = interleave_high(a[i], a[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < kLanes; ++i) a[i] = b[i];
  }
}

/// panel[k][r] = w[r][k], 0 for r beyond `rows`.
inline void pack_rows(const float* w, int64_t stride, int64_t rows, int64_t depth, float* panel) {
  for (int64_t first = 0; first < kTileCols; first += kLanes) {
    for_each_vector(depth, [&](int64_t k, int64_t count) {
      Vec a[kLanes];
#pragma GCC unroll 16
      for (int64_t i = 0; i < kLanes; ++i)
        a[i] = first + i < rows ? load(w + (first + i) * stride + k, count, 0) : broadcast(0);
      transpose(a);
      for (int64_t i = 0; i < count; ++i) store(panel + (k + i) * kTileCols + first, a[i]);
    });
  }
}

/// panel[k][c] = v[k][c], 0 for c beyond `cols`.
template <class T>
inline void pack_cols(const T* v, int64_t stride, int64_t cols, int64_t depth, float* panel) {
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t first = 0; first < kTileCols; first += kLanes) {
      const int64_t count = min_of(kLanes, max_of(0, cols - first));
      store(panel + k * kTileCols + first, load(v + k * stride + first, count, 0));
    }
  }
}

/// A panel and what happens to the values of y that it gives. W: float, or 16 bits that are widened as they are read.
template <class W>
struct ProductOf {
  const W* panel;  // [depth][kTileCols], rows `stride` apart
  int64_t depth, width;
  bool add;     // to what y holds; otherwise y starts as
  Vec bias[2];  // this
  int64_t stride = kTileCols;
};
using Product = ProductOf<float>;

template <int M, class W>
inline void multiply_tile(const ProductOf<W>& product, const float* x, int64_t x_stride, float* y, int64_t y_stride) {
  Vec sums[M][2];
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) sums[m][0] = sums[m][1] = broadcast(0);
  const TileRows<M, float> rows(x, x_stride);
  const W* panel = product.panel;
  for (int64_t k = 0; k < product.depth; ++k, panel += product.stride) {
    if constexpr (M == 1) __builtin_prefetch(reinterpret_cast<const char*>(panel) + kPrefetchBytes);
    const Vec left = load(panel), right = load(panel + kLanes);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const Vec value = broadcast(*rows.at(m, k));
      sums[m][0] += value * left;
      sums[m][1] += value * right;
    }
  }
  const int64_t counts[2] = {min_of(product.width, kLanes), max_of(0, product.width - kLanes)};
  for (int m = 0; m < M; ++m) {
    for (int half = 0; half < 2; ++half) {
      float* out = y + m * y_stride + half * kLanes;
      const Vec before = product.add ? load(out, counts[half], 0) : product.bias[half];
      store(out, before + sums[m][half], counts[half]);
    }
  }
}

template <class W>
inline void multiply(const ProductOf<W>& product, const float* x, int64_t x_stride, int64_t tokens, float* y,
                     int64_t y_stride) {
  int64_t t = 0;
  for (; t + kTileRows <= tokens; t += kTileRows)
    multiply_tile<kTileRows>(product, x + t * x_stride, x_stride, y + t * y_stride, y_stride);
  const auto tile = [&]<int M>() {
    if (t + M > tokens) return;
    multiply_tile<M>(product, x + t * x_stride, x_stride, y + t * y_stride, y_stride);
    t += M;
  };
  tile.template operator()<kTileRows / 2>();
  tile.template operator()<4>();
  tile.template operator()<3>();
  while (t < tokens) tile.template operator()<1>();
}

/// Panels of all cols, one after the other.
inline void pack_weight_rows(const float* w, int64_t rows, int64_t cols, float* packed) {
  for (int64_t row = 0; row < rows; row += kTileCols)
    pack_rows(w + row * cols, cols, min_of(kTileCols, rows - row), cols, packed + row * cols);
}

/// The same in 16 bits.
template <class T>
inline void pack_narrow_weight_rows(const float* w, int64_t rows, int64_t cols, T* packed) {
  alignas(64) float panel[kTileCols * kDepth];
  for (int64_t row = 0; row < rows; row += kTileCols) {
    for (int64_t k = 0; k < cols; k += kDepth) {
      const int64_t depth = min_of(kDepth, cols - k);
      pack_rows(w + row * cols + k, cols, min_of(kTileCols, rows - row), depth, panel);
      T* out = packed + row * cols + k * kTileCols;
      for (int64_t i = 0; i < depth * kTileCols; i += kLanes) store(out + i, load(panel + i));
    }
  }
}

/// One panel of 16 bits: as it is for few tokens, for more widened once.
template <class T>
inline void multiply_narrow(const Product& like, const T* panel, const MatmulArguments& a, int64_t row, int64_t k,
                            float* scratch) {
  if (a.tokens <= kTileRows) {
    const ProductOf<T> product{panel, like.depth, like.width, like.add, {like.bias[0], like.bias[1]}};
    return multiply(product, a.x + k, a.x_stride, a.tokens, a.y + row, a.y_stride);
  }
  for (int64_t i = 0; i < like.depth * kTileCols; i += kLanes) store(scratch + i, load(panel + i));
  multiply(like, a.x + k, a.x_stride, a.tokens, a.y + row, a.y_stride);
}

inline void matmul_rows(const MatmulArguments& a, int64_t begin, int64_t end, float* scratch) {
  for (int64_t row = begin; row < end; row += kTileCols) {
    Product product{scratch, 0, min_of(kTileCols, end - row), false, {broadcast(0), broadcast(0)}};
    if (a.bias != nullptr) {
      product.bias[0] = load(a.bias + row, min_of(kLanes, product.width), 0);
      product.bias[1] = load(a.bias + row + kLanes, max_of(0, product.width - kLanes), 0);
    }
    for (int64_t k = 0; k < a.cols; k += kDepth) {
      product.depth = min_of(kDepth, a.cols - k);
      product.add = k > 0;
      const int64_t at = row * a.cols + k * kTileCols;
      if (a.w_bf16 != nullptr) {
        multiply_narrow(product, a.w_bf16 + at, a, row, k, scratch);
        continue;
      }
      if (a.w_f16 != nullptr) {
        multiply_narrow(product, a.w_f16 + at, a, row, k, scratch);
        continue;
      }
      if (a.packed)
        product.panel = a.w + at;
      else
        pack_rows(a.w + row * a.cols + k, a.cols, product.width, product.depth, scratch);
      multiply(product, a.x + k, a.x_stride, a.tokens, a.y + row, a.y_stride);
    }
  }
}

}  // namespace
}  // namespace crumb::kernels
