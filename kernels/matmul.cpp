#include "kernels/matmul.h"

#include <algorithm>

#include "kernels/isa/table.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kLeastWork = 1 << 17;  // multiply-adds for which waking a thread pays
constexpr int64_t kPiecesPerThread = 4;  // so that a thread that was held up does not hold up the others

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

}  // namespace crumb::kernels
