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
  const uint8_t* codes() const { return product.matrix.codes + panel * panel_bytes_of(product.matrix); }
  /// Of a segment: where the scales of its rows lie, the sum of token m's activations, their scale.
  int64_t scales_at(int64_t segment) const {
    return first_scale_of(product.matrix, panel, segment * x.segment_cols / product.matrix.group_cols);
  }
  int32_t sum(int m, int64_t segment) const { return x.sums[(token + m) * segments() + segment]; }
  float scale(int m, int64_t segment) const {
    return x.scales[(token + m) * (x.cols / x.scale_cols) + segment * x.segment_cols / x.scale_cols];
  }
  float* y(int m) const { return product.y + (token + m) * product.matrix.rows + panel * kCodePanelRows; }
};

}  // namespace
}  // namespace crumb::kernels
