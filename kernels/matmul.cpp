#include "kernels/matmul.h"

#include <algorithm>
#include <bit>

#include "kernels/isa/table.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kLeastWork = 1 << 17;  // multiply-adds for which waking a thread pays
constexpr int64_t kPiecesPerThread = 4;  // so that a thread that was held up does not hold up the others

float widened(float x) { return x; }
float widened(Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

template <class W>
void read_row_of(const W* packed, int64_t cols, int64_t row, float* out, Isa isa) {
  const int64_t together = kernel_table(isa).packed_rows;
  packed += row / together * together * cols + row % together;
  for (int64_t k = 0; k < cols; ++k) out[k] = widened(packed[k * together]);
}

}  // namespace

void matmul(const MatmulArguments& a, Executor& executor, Isa isa) {
  const auto& table = kernel_table(isa);
  const int64_t panels = (a.rows + kPanelRows - 1) / kPanelRows, pieces = kPiecesPerThread * executor.num_threads();
  const int64_t least = kLeastWork / std::max<int64_t>(1, a.tokens * a.cols * kPanelRows);
  executor.run_in_turns(panels, std::max({int64_t{1}, least, panels / pieces}), [&](int64_t begin, int64_t end, int) {
    table.matmul(a, begin * kPanelRows, std::min(end * kPanelRows, a.rows), thread_scratch(kMatmulScratch));
  });
}

int64_t packed_size(int64_t rows, int64_t cols) { return (rows + kPanelRows - 1) / kPanelRows * kPanelRows * cols; }

void pack_weights(const float* w, int64_t rows, int64_t cols, float* packed, Isa isa) {
  kernel_table(isa).pack_weights(w, rows, cols, packed);
}

void pack_weights_bf16(const float* w, int64_t rows, int64_t cols, Bf16* packed, Isa isa) {
  kernel_table(isa).pack_weights_bf16(w, rows, cols, packed);
}

void read_packed_row(const float* packed, int64_t cols, int64_t row, float* out, Isa isa) {
  read_row_of(packed, cols, row, out, isa);
}
void read_packed_row(const Bf16* packed, int64_t cols, int64_t row, float* out, Isa isa) {
  read_row_of(packed, cols, row, out, isa);
}

}  // namespace crumb::kernels
