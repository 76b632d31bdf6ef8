// Codes times float activations: the product of kernels/isa/matmul.h, whose panels are made of codes as they are read;
// included by the files of the instruction sets.
#pragma once

#include "kernels/isa/code_blocks.h"
#include "kernels/isa/matmul.h"

namespace crumb::kernels {
namespace {

static_assert(kCodePanelRows % kLanes == 0 && kTileCols % kLanes == 0 && kDepth % kCodeColsMultiple == 0);

/// kLanes rows of a panel, or none beyond the last panel.
struct CodeLanes {
  const uint8_t* codes = nullptr;  // of the panel's first block, at the rows
  const float* scales = nullptr;   // of the panel's first group, at the rows
  const int32_t* zeros = nullptr;
  const float* minima = nullptr;
};
inline CodeLanes code_lanes(const CodeMatrix& m, int64_t row) {
  if (row >= m.rows) return {};
  const int64_t panel = row / kCodePanelRows, lane = row % kCodePanelRows, at = first_scale_of(m, panel, 0) + lane;
  return {m.codes + panel * panel_bytes_of(m) + 4 * lane, m.scales + at, m.zeros == nullptr ? nullptr : m.zeros + at,
          m.minima == nullptr ? nullptr : m.minima + at};
}

/// The levels of codes, as floats.
template <Codes kCodes>
struct CodeLevels {
  explicit CodeLevels(const CodeMatrix&) {}
  Vec of(VecUnsigned codes) const { return __builtin_convertvector(__builtin_bit_cast(VecInt, codes), Vec); }
};
template <>
struct CodeLevels<Codes::numbers> {
  Vec levels[16 / kLanes];

  explicit CodeLevels(const CodeMatrix& m) {
    for (int64_t i = 0; i < 16; ++i) levels[i / kLanes][i % kLanes] = m.levels[i];
  }
  Vec of(VecUnsigned codes) const {
#if defined(__clang__)  // which has no shuffle by a register
    Vec out;
    for (int64_t i = 0; i < kLanes; ++i) out[i] = levels[codes[i] / kLanes][codes[i] % kLanes];
    return out;
#elif CRUMB_LANES == 16
    return __builtin_shuffle(levels[0], __builtin_bit_cast(VecInt, codes));
#else
    return __builtin_shuffle(levels[0], levels[1], __builtin_bit_cast(VecInt, codes));
#endif
  }
};

/// take(k, weights of the rows) for k = first ... last - 1; first is a multiple of kCodeColsMultiple, and all columns
/// are of one group.
template <int kBits, Codes kCodes, class Take>
inline void for_each_column(const CodeMatrix& m, const CodeLanes& lanes, const CodeLevels<kCodes>& levels,
                            int64_t first, int64_t last, const Take& take) {
  constexpr int64_t kBlockCols = 32 / kBits;
  const int64_t group = first / m.group_cols * kCodePanelRows;
  const auto step = static_cast<float>(m.step);  // a power of two, so the product is that of step * code - zero
  const Vec scale = load(lanes.scales + group) * step;
  const VecInt zeros =
      m.zeros == nullptr ? VecInt{} + m.zero : __builtin_bit_cast(VecInt, load_bits(lanes.zeros + group));
  const Vec zero = __builtin_convertvector(zeros, Vec) / step;
  const Vec minimum = lanes.minima == nullptr ? broadcast(-0.0f) : load(lanes.minima + group);  // -0 changes nothing
  const auto weights = [&](VecUnsigned bits, int64_t i) {
    const auto code = (bits >> static_cast<int>(8 * (i % 4) + kBits * (i / 4))) & ((1u << kBits) - 1);
    return (levels.of(code) - zero) * scale + minimum;
  };
  for (int64_t k = first; k < last; k += kBlockCols) {
    const uint8_t* block = lanes.codes + k / kBlockCols * kCodeBlockBytes;
    __builtin_prefetch(block + kPrefetchBytes);
    const VecUnsigned bits = load_bits(block);
    if (k + kBlockCols <= last) {
#pragma GCC unroll 16
      for (int64_t i = 0; i < kBlockCols; ++i) take(k + i, weights(bits, i));
    } else {
      for (int64_t i = 0; k + i < last; ++i) take(k + i, weights(bits, i));
    }
  }
}

/// The same for any columns.
template <int kBits, Codes kCodes, class Take>
inline void for_each_column_of_groups(const CodeMatrix& m, const CodeLanes& lanes, const CodeLevels<kCodes>& levels,
                                      int64_t first, int64_t last, const Take& take) {
  while (first < last) {
    const int64_t end = min_of(last, (first / m.group_cols + 1) * m.group_cols);
    for_each_column<kBits>(m, lanes, levels, first, end, take);
    first = end;
  }
}

/// panel[k][r] = weights of rows row + r and columns first + k, 0 for rows beyond the last.
template <int kBits, Codes kCodes>
inline void unpack_codes(const CodeMatrix& m, int64_t row, int64_t first, int64_t depth, float* panel) {
  const CodeLevels<kCodes> levels(m);
  for (int64_t at = 0; at < kTileCols; at += kLanes) {
    const CodeLanes lanes = code_lanes(m, row + at);
    if (lanes.codes == nullptr) {
      for (int64_t k = 0; k < depth; ++k) store(panel + k * kTileCols + at, broadcast(0));
    } else {
      for_each_column_of_groups<kBits>(m, lanes, levels, first, first + depth, [&](int64_t k, Vec weights) {
        store(panel + (k - first) * kTileCols + at, weights);
      });
    }
  }
}

/// One token: the chains of multiply_tile without a panel between.
template <int kBits, Codes kCodes>
inline void multiply_codes_by_token(const float* x, const CodeProduct& product, int64_t row, int64_t width) {
  const CodeMatrix& m = product.matrix;
  const CodeLanes lanes = code_lanes(m, row);
  const CodeLevels<kCodes> levels(m);
  Vec y = product.bias == nullptr ? broadcast(0) : load(product.bias + row, width, 0);
  for (int64_t first = 0; first < m.cols; first += kDepth) {
    Vec sums = broadcast(0);
    for_each_column_of_groups<kBits>(m, lanes, levels, first, min_of(first + kDepth, m.cols),
                                     [&](int64_t k, Vec weights) { sums += broadcast(x[k]) * weights; });
    y = y + sums;
  }
  store(product.y + row, y, width);
}

template <int kBits, Codes kCodes>
inline void multiply_codes_of_width(const float* x, int64_t tokens, const CodeProduct& code_product, int64_t begin,
                                    int64_t end, float* scratch) {
  const CodeMatrix& m = code_product.matrix;
  const int64_t last = min_of(end * kCodePanelRows, m.rows);
  if (tokens == 1) {
    for (int64_t row = begin * kCodePanelRows; row < last; row += kLanes)
      multiply_codes_by_token<kBits, kCodes>(x, code_product, row, min_of(kLanes, last - row));
    return;
  }
  for (int64_t row = begin * kCodePanelRows; row < last; row += kTileCols) {
    Product product{scratch, 0, min_of(kTileCols, last - row), false, {broadcast(0), broadcast(0)}};
    if (code_product.bias != nullptr) {
      product.bias[0] = load(code_product.bias + row, min_of(kLanes, product.width), 0);
      product.bias[1] = load(code_product.bias + row + kLanes, max_of(0, product.width - kLanes), 0);
    }
    for (int64_t k = 0; k < m.cols; k += kDepth) {
      product.depth = min_of(kDepth, m.cols - k);
      product.add = k > 0;
      unpack_codes<kBits, kCodes>(m, row, k, product.depth, scratch);
      multiply(product, x + k, m.cols, tokens, code_product.y + row, m.rows);
    }
  }
}

inline void multiply_codes(const float* x, int64_t tokens, const CodeProduct& product, int64_t begin, int64_t end,
                           float* scratch) {
  with_code_form(product.matrix, [&]<int kBits, Codes kCodes>() {
    multiply_codes_of_width<kBits, kCodes>(x, tokens, product, begin, end, scratch);
  });
}

}  // namespace
}  // namespace crumb::kernels
