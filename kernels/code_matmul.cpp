#include "kernels/code_matmul.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/common/error.h"
#include "kernels/code_matmul_portable.h"
#include "kernels/isa/table.h"
#include "kernels/rounded_tokens.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kLeastInt8Work = 1 << 20;  // multiply-adds for which waking a thread pays
constexpr int64_t kLeastFloatWork = 1 << 18;
constexpr int64_t kPiecesPerThread = 4;  // so that a thread that was held up does not hold up the others
constexpr int64_t kPanelsPerPiece = kPanelRows / kCodePanelRows;

void check(const CodeMatrix& m) {
  CRUMB_ASSERT(m.bits == 2 || m.bits == 4 || m.bits == 8);
  CRUMB_ASSERT(m.group_cols == m.cols || (m.group_cols % kCodeColsMultiple == 0 && m.cols % m.group_cols == 0));
  CRUMB_ASSERT(m.group_cols <= kMostCodeCols && (m.step == 1 || (m.step == 2 && m.bits < 8)));
  CRUMB_ASSERT(m.levels == nullptr || (m.bits == 4 && m.step == 1 && m.zeros == nullptr));
}

/// Calls body(product, first panel, last panel) for pieces of all products.
template <class Body>
void for_pieces(std::span<const CodeProduct> products, int64_t tokens, int64_t least_work, Executor& executor,
                const Body& body) {
  int64_t pieces = 0;  // of two panels
  for (const auto& product : products) pieces += (product.matrix.panels() + kPanelsPerPiece - 1) / kPanelsPerPiece;
  const int64_t work = tokens * products.front().matrix.cols * kPanelRows;
  const int64_t grain = std::max(
      {int64_t{1}, least_work / std::max<int64_t>(1, work), pieces / (kPiecesPerThread * executor.num_threads())});
  executor.run_in_turns(pieces, grain, [&](int64_t begin, int64_t end, int) {
    int64_t first = 0;  // piece of the product
    for (const auto& product : products) {
      const int64_t panels = product.matrix.panels(), count = (panels + kPanelsPerPiece - 1) / kPanelsPerPiece;
      const int64_t from = std::max(begin - first, int64_t{0}), to = std::min(end - first, count);
      if (from < to) body(product, from * kPanelsPerPiece, std::min(to * kPanelsPerPiece, panels));
      first += count;
    }
  });
}

}  // namespace

int64_t code_panel_bytes(int64_t cols, int bits) {
  const int64_t padded = (cols + kCodeColsMultiple - 1) / kCodeColsMultiple * kCodeColsMultiple;
  return padded * bits / 8 * kCodePanelRows;
}

namespace {

/// A row of the 4 bytes of one block, of 32 / kBits codes: four of them are shifted at once, none reaches the next
/// byte.
template <int kBits>
uint32_t pack_block_row(const uint8_t* codes) {
  uint32_t packed = 0;
  for (int field = 0; field < 8 / kBits; ++field) {
    uint32_t four = 0;
    std::memcpy(&four, codes + 4 * field, sizeof four);
    packed |= four << (kBits * field);
  }
  return packed;
}

template <int kBits>
void pack_panel(const uint8_t* codes, int64_t rows, int64_t cols, uint8_t* panel) {
  constexpr int64_t kCols = 32 / kBits;
  for (int64_t row = 0; row < rows; ++row, codes += cols) {
    uint8_t* out = panel + row * 4;
    int64_t k = 0;
    for (; k + kCols <= cols; k += kCols, out += kCodeBlockBytes) {
      const uint32_t packed = pack_block_row<kBits>(codes + k);
      std::memcpy(out, &packed, sizeof packed);
    }
    if (k == cols) continue;
    uint8_t rest[kCols] = {};
    std::copy(codes + k, codes + cols, rest);
    const uint32_t packed = pack_block_row<kBits>(rest);
    std::memcpy(out, &packed, sizeof packed);
  }
}

}  // namespace

void pack_code_panel(const uint8_t* codes, int64_t rows, int64_t cols, int bits, uint8_t* panel) {
  // Every row writes its part of each block; padding remains where rows or the columns of 8 bits end early.
  const int64_t bytes = code_panel_bytes(cols, bits);
  if (rows < kCodePanelRows || cols * bits / 32 * kCodeBlockBytes < bytes)
    std::memset(panel, 0, static_cast<size_t>(bytes));
  if (bits == 2)
    pack_panel<2>(codes, rows, cols, panel);
  else if (bits == 4)
    pack_panel<4>(codes, rows, cols, panel);
  else
    pack_panel<8>(codes, rows, cols, panel);
}

int64_t int8_stride(int64_t cols) { return ((cols + kCodeBlockBytes - 1) / kCodeBlockBytes | 1) * kCodeBlockBytes; }

void code_matmul(const Int8Tokens& x, std::span<const CodeProduct> products, Executor& executor, Isa isa) {
  for (const auto& product : products) {
    check(product.matrix);
    CRUMB_ASSERT(product.matrix.cols == x.cols);
    CRUMB_ASSERT(x.segment_cols == std::min(x.scale_cols, product.matrix.group_cols));
    CRUMB_ASSERT(std::max(x.scale_cols, product.matrix.group_cols) % x.segment_cols == 0);
  }
  const auto multiply = kernel_table(isa).code_matmul;
  for_pieces(products, x.tokens, kLeastInt8Work, executor,
             [&](const CodeProduct& product, int64_t begin, int64_t end) { multiply(x, product, begin, end); });
}

void code_matmul(const float* x, int64_t tokens, std::span<const CodeProduct> products, Executor& executor, Isa isa) {
  for (const auto& product : products) check(product.matrix);
  const auto multiply = kernel_table(isa).code_matmul_float;
  for_pieces(products, tokens, kLeastFloatWork, executor, [&](const CodeProduct& product, int64_t begin, int64_t end) {
    multiply(x, tokens, product, begin, end, thread_scratch(kMatmulScratch));
  });
}

void code_matmul_of_bf16(const float* x, int64_t tokens, std::span<const CodeProduct> products, Executor& executor,
                         Isa isa) {
  const int64_t cols = products.front().matrix.cols;
  const auto multiply = kernel_table(isa).code_matmul_bf16;
  if (multiply == nullptr)
    return code_matmul(bf16_values(x, cols, tokens, cols, executor, isa), tokens, products, executor, isa);
  for (const auto& product : products) {
    check(product.matrix);
    CRUMB_ASSERT(product.matrix.cols == cols);
  }
  const Bf16Tokens rounded = bf16_tokens(x, cols, tokens, cols, executor, isa);
  for_pieces(products, tokens, kLeastFloatWork, executor, [&](const CodeProduct& product, int64_t begin, int64_t end) {
    multiply(rounded, product, begin, end, thread_scratch(kMatmulScratch));
  });
}

namespace portable {
namespace {

/// Of column k of a row: its code, or the level of that.
int32_t code_at(const CodeMatrix& m, int64_t row, int64_t k) {
  const int64_t block_cols = 32 / m.bits;
  const uint8_t* panel = m.codes + row / kCodePanelRows * code_panel_bytes(m.cols, m.bits);
  const int byte = panel[k / block_cols * kCodeBlockBytes + row % kCodePanelRows * 4 + k % 4];
  const int code = byte >> (m.bits * static_cast<int>(k % block_cols / 4)) & ((1 << m.bits) - 1);
  return m.levels == nullptr ? code : m.levels[code];
}

int64_t group_at(const CodeMatrix& m, int64_t row, int64_t k) {
  const int64_t group = row / kCodePanelRows * m.groups() + k / m.group_cols;
  return group * kCodePanelRows + row % kCodePanelRows;
}

}  // namespace

void code_matmul(const Int8Tokens& x, const CodeProduct& product, int64_t begin, int64_t end) {
  const CodeMatrix& m = product.matrix;
  const int64_t last = std::min(end * kCodePanelRows, m.rows), segments = x.cols / x.segment_cols;
  for (int64_t row = begin * kCodePanelRows; row < last; ++row) {
    for (int64_t t = 0; t < x.tokens; ++t) {
      const int8_t* codes = x.codes + t * x.stride;
      float y = product.bias == nullptr ? 0.0f : product.bias[row];
      for (int64_t segment = 0; segment < segments; ++segment) {
        const int64_t first = segment * x.segment_cols, group = group_at(m, row, first);
        int32_t sum = 0;
        for (int64_t k = first; k < first + x.segment_cols; ++k) sum += code_at(m, row, k) * codes[k];
        const int32_t zero = m.zeros == nullptr ? m.zero : m.zeros[group];
        const int32_t sum_x = x.sums[t * segments + segment], whole = m.step * sum - zero * sum_x;
        const float scale_x = x.scales[t * (x.cols / x.scale_cols) + first / x.scale_cols];
        y = std::fma(static_cast<float>(whole), m.scales[group] * scale_x, y);
        if (m.minima != nullptr) y = std::fma(static_cast<float>(sum_x), m.minima[group] * scale_x, y);
      }
      product.y[t * m.rows + row] = y;
    }
  }
}

void dequantize_row(const CodeMatrix& m, int64_t row, float* out) {
  for (int64_t k = 0; k < m.cols; ++k) {
    const int64_t group = group_at(m, row, k);
    const int32_t zero = m.zeros == nullptr ? m.zero : m.zeros[group];
    const auto whole = static_cast<float>(m.step * code_at(m, row, k) - zero);
    out[k] = m.minima == nullptr ? whole * m.scales[group] : std::fma(whole, m.scales[group], m.minima[group]);
  }
}

}  // namespace portable
}  // namespace crumb::kernels
