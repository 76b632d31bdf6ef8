#include "kernels/matmul.h"

#include <algorithm>

#include "core/common/error.h"
#include "kernels/isa/table.h"
#include "kernels/rounded_tokens.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kLeastWork = 1 << 17;  // multiply-adds for which waking a thread pays
constexpr int64_t kPiecesPerThread = 4;  // so that a thread that was held up does not hold up the others

float widened(float x) { return x; }
float widened(Half x) { return from_f16(x.bits); }

template <class W>
void read_row_of(const W* packed, int64_t cols, int64_t row, float* out, Isa isa) {
  const int64_t together = kernel_table(isa).packed_rows;
  packed += row / together * together * cols + row % together;
  for (int64_t k = 0; k < cols; ++k) out[k] = widened(packed[k * together]);
}

/// Calls body(first row, last row) for pieces of W, of whole panels.
template <class Body>
void for_row_pieces(const MatmulArguments& a, Executor& executor, const Body& body) {
  const int64_t panels = (a.rows + kPanelRows - 1) / kPanelRows, pieces = kPiecesPerThread * executor.num_threads();
  const int64_t least = kLeastWork / std::max<int64_t>(1, a.tokens * a.cols * kPanelRows);
  executor.run_in_turns(panels, std::max({int64_t{1}, least, panels / pieces}), [&](int64_t begin, int64_t end, int) {
    body(begin * kPanelRows, std::min(end * kPanelRows, a.rows));
  });
}

}  // namespace

void matmul(const MatmulArguments& a, Executor& executor, Isa isa) {
  const auto multiply = kernel_table(isa).matmul;
  for_row_pieces(a, executor,
                 [&](int64_t begin, int64_t end) { multiply(a, begin, end, thread_scratch(kMatmulScratch)); });
}

void matmul_of_bf16(const MatmulArguments& a, Executor& executor, Isa isa) {
  CRUMB_ASSERT(a.w_bf16 != nullptr);
  const auto multiply = kernel_table(isa).matmul_bf16;
  if (multiply == nullptr) {
    MatmulArguments rounded = a;
    rounded.x = bf16_values(a.x, a.x_stride, a.tokens, a.cols, executor, isa);
    rounded.x_stride = a.cols;
    return matmul(rounded, executor, isa);
  }
  const Bf16Tokens x = bf16_tokens(a.x, a.x_stride, a.tokens, a.cols, executor, isa);
  for_row_pieces(a, executor, [&](int64_t begin, int64_t end) { multiply(x, a, begin, end); });
}

int64_t packed_size(int64_t rows, int64_t cols) { return (rows + kPanelRows - 1) / kPanelRows * kPanelRows * cols; }

void pack_weights(const float* w, int64_t rows, int64_t cols, float* packed, Isa isa) {
  kernel_table(isa).pack_weights(w, rows, cols, packed);
}

void pack_weights_bf16(const float* w, int64_t rows, int64_t cols, Bf16* packed, Isa isa) {
  kernel_table(isa).pack_weights_bf16(w, rows, cols, packed);
}

void pack_weights_f16(const float* w, int64_t rows, int64_t cols, Half* packed, Isa isa) {
  kernel_table(isa).pack_weights_f16(w, rows, cols, packed);
}

void read_packed_row(const float* packed, int64_t cols, int64_t row, float* out, Isa isa) {
  read_row_of(packed, cols, row, out, isa);
}
void read_packed_row(const Bf16* packed, int64_t cols, int64_t row, float* out, Isa isa) {
  read_row_of(packed, cols, row, out, isa);
}
void read_packed_row(const Half* packed, int64_t cols, int64_t row, float* out, Isa isa) {
  read_row_of(packed, cols, row, out, isa);
}

}  // namespace crumb::kernels
