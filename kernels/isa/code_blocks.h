// Where the codes of a matrix lie, for the files of the instruction sets (kernels/code_matmul.h has the layout).
#pragma once

#include "kernels/code_matmul.h"
#include "kernels/isa/vector.h"

namespace crumb::kernels {
namespace {

using VecUnsigned = uint32_t __attribute__((vector_size(4 * CRUMB_LANES)));

inline VecUnsigned load_bits(const void* p) {
  VecUnsigned v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

/// What codes are: levels, or their numbers in CodeMatrix::levels.
enum class Codes { levels, numbers };

/// body.operator()<bits, Codes>() for the codes of a matrix.
template <class Body>
inline void with_code_form(const CodeMatrix& m, const Body& body) {
  if (m.levels != nullptr) return body.template operator()<4, Codes::numbers>();
  if (m.bits == 2) return body.template operator()<2, Codes::levels>();
  if (m.bits == 4) return body.template operator()<4, Codes::levels>();
  body.template operator()<8, Codes::levels>();
}

/// body.operator()<M>(first token) for tiles of M = kMost tokens, then of half as many, until one is left.
template <int kMost, class Body>
inline void for_token_tiles(int64_t tokens, const Body& body, int64_t token = 0) {
  for (; token + kMost <= tokens; token += kMost) body.template operator()<kMost>(token);
  if constexpr (kMost > 1) for_token_tiles<kMost / 2>(tokens, body, token);
}

inline int64_t blocks_of(int64_t cols, int bits) { return (cols * bits + 31) / 32; }
inline int64_t panel_bytes_of(const CodeMatrix& m) {
  return blocks_of((m.cols + kCodeColsMultiple - 1) / kCodeColsMultiple * kCodeColsMultiple, m.bits) * kCodeBlockBytes;
}
/// Of the scales and zeros of a panel's group.
inline int64_t first_scale_of(const CodeMatrix& m, int64_t panel, int64_t group) {
  return (panel * (m.cols / m.group_cols) + group) * kCodePanelRows;
}

/// What a tile of the integer product walks over.
struct CodeTile {
  const Int8Tokens& x;
  const CodeProduct& product;
  int64_t panel, token;

  const CodeMatrix& matrix() const { return product.matrix; }
  int64_t segments() const { return x.cols / x.segment_cols; }
  int64_t rows() const { return min_of(kCodePanelRows, product.matrix.rows - panel * kCodePanelRows); }
  const int8_t* activations(int64_t k) const { return x.codes + token * x.stride + k; }
  const uint8_t* codes() const { return product.matrix.codes + panel * panel_bytes_of(product.matrix); }
  /// Of a segment: where the scales of its rows lie, the sum of token m's activations, their scale.
  int64_t scales_at(int64_t segment) const {
    return first_scale_of(product.matrix, panel, segment * x.segment_cols / product.matrix.group_cols);
  }
  int32_t sum(int m, int64_t segment) const { return x.sums[(token + m) * segments() + segment]; }
  float scale(int m, int64_t segment) const {
    return x.scales[(token + m) * (x.cols / x.scale_cols) + segment * x.segment_cols / x.scale_cols];
  }
  /// Of rows kLanes v ..., zeros where there are none.
  Vec bias(int64_t v) const {
    const int64_t row = panel * kCodePanelRows + v * kLanes;
    return product.bias == nullptr ? broadcast(0) : load(product.bias + row, rows_of(v), 0);
  }
  int64_t rows_of(int64_t v) const { return max_of(0, min_of(kLanes, rows() - v * kLanes)); }
  float* y(int m) const { return product.y + (token + m) * product.matrix.rows + panel * kCodePanelRows; }
};

constexpr int64_t kPanelVectors = kCodePanelRows / kLanes;

/// Of codes times activations, for M tokens and the rows of a panel.
template <int M>
struct TileSums {
  VecInt of[M][kPanelVectors];

  /// From an array on the stack, which is what compilers keep in registers while it is added to.
  template <class Register, int kCount>
  explicit TileSums(const Register (&sums)[M][kCount]) {
    static_assert(sizeof of == sizeof sums);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) __builtin_memcpy(of[m], sums[m], sizeof of[m]);
  }
};

/// Of one segment, what turns sums into results for kLanes rows. at: of their scales.
struct SegmentRows {
  Vec scales, minima{};
  VecInt zeros;
  int doubled;
  bool has_minima;

  SegmentRows(const CodeMatrix& m, int64_t at)
      : scales(load(m.scales + at)),
        zeros(m.zeros == nullptr ? VecInt{} + m.zero : __builtin_bit_cast(VecInt, load_bits(m.zeros + at))),
        doubled(m.step - 1),
        has_minima(m.minima != nullptr) {
    if (has_minima) minima = load(m.minima + at);
  }
  Vec add(Vec y, VecInt sums, int32_t sum_x, float scale_x) const {
    const VecInt whole = (sums << doubled) - zeros * sum_x;
    y = fused(__builtin_convertvector(whole, Vec), scales * scale_x, y);
    return has_minima ? fused(broadcast(static_cast<float>(sum_x)), minima * scale_x, y) : y;
  }
};

/// What a tile's segment adds to the results y of its rows.
template <int M>
__attribute__((always_inline)) inline void add_segment(const CodeTile& tile, int64_t segment, const TileSums<M>& sums,
                                                       Vec (&y)[M][kPanelVectors]) {
  const int64_t at = tile.scales_at(segment);
#pragma GCC unroll 2
  for (int64_t v = 0; v < kPanelVectors; ++v) {
    const SegmentRows rows(tile.matrix(), at + v * kLanes);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
      y[m][v] = rows.add(y[m][v], sums.of[m][v], tile.sum(m, segment), tile.scale(m, segment));
  }
}

/// M tokens times a panel. sum_products(codes, k, segment): those of the segment that begins at `codes` and column k.
template <int kBits, int M, class SumProducts>
inline void multiply_code_tile(const CodeTile& tile, const SumProducts& sum_products) {
  const int64_t segment_cols = tile.x.segment_cols;
  const int64_t segment_bytes = blocks_of(segment_cols, kBits) * kCodeBlockBytes;
  Vec y[M][kPanelVectors];
  for (int64_t v = 0; v < kPanelVectors; ++v) {
    const Vec bias = tile.bias(v);
    for (int m = 0; m < M; ++m) y[m][v] = bias;
  }
  const uint8_t* codes = tile.codes();
  for (int64_t segment = 0; segment < tile.segments(); ++segment, codes += segment_bytes) {
    const TileSums<M> sums = sum_products(codes, segment * segment_cols, segment);
    add_segment<M>(tile, segment, sums, y);
  }
  for (int64_t v = 0; v < kPanelVectors; ++v) {
    for (int m = 0; m < M; ++m) store(tile.y(m) + v * kLanes, y[m][v], tile.rows_of(v));
  }
}

}  // namespace
}  // namespace crumb::kernels
