#include "kernels/rms_norm.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "kernels/isa/table.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kRowsPerSum = 64;  // rows whose weight gradients are added before the sums of all such blocks are
constexpr int64_t kValuesPerPiece = 16384;

template <class In, class Out>
const RmsNormFunctions<In, Out>& functions(Isa isa) {
  const KernelTable& table = kernel_table(isa);
  if constexpr (std::is_same_v<In, Bf16>)
    return table.rms_norm_bf16;
  else if constexpr (std::is_same_v<Out, Bf16>)
    return table.rms_norm_to_bf16;
  else
    return table.rms_norm;
}

}  // namespace

template <class In, class Out>
void rms_norm_forward(const In* x, const float* weight, float eps, int64_t rows, int64_t cols, Out* y,
                      Executor& executor, Isa isa) {
  const auto forward = functions<In, Out>(isa).forward;
  executor.run(rows, std::max<int64_t>(1, kValuesPerPiece / cols), [&](int64_t begin, int64_t end, int) {
    forward(x + begin * cols, weight, eps, end - begin, cols, y + begin * cols);
  });
}

template <class In, class Out>
void rms_norm_backward(const In* x, const float* weight, const Out* grad_y, float eps, int64_t rows, int64_t cols,
                       In* grad_x, float* grad_weight, Executor& executor, Isa isa) {
  const auto backward = functions<In, Out>(isa).backward;
  const int64_t blocks = (rows + kRowsPerSum - 1) / kRowsPerSum;
  std::vector<float> sums(grad_weight == nullptr ? 0 : static_cast<size_t>(blocks * cols), 0.0f);
  executor.run(blocks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kRowsPerSum, count = std::min(kRowsPerSum, rows - first);
      backward(x + first * cols, weight, grad_y + first * cols, eps, count, cols, grad_x + first * cols,
               grad_weight == nullptr ? nullptr : sums.data() + block * cols);
    }
  });
  if (grad_weight == nullptr) return;
  for (int64_t c = 0; c < cols; ++c) {
    double total = 0;
    for (int64_t b = 0; b < blocks; ++b) total += sums[static_cast<size_t>(b * cols + c)];
    grad_weight[c] = static_cast<float>(total);
  }
}

#define CRUMB_RMS_NORM(In, Out)                                                                              \
  template void rms_norm_forward(const In*, const float*, float, int64_t, int64_t, Out*, Executor&, Isa);    \
  template void rms_norm_backward(const In*, const float*, const Out*, float, int64_t, int64_t, In*, float*, \
                                  Executor&, Isa);
CRUMB_RMS_NORM(float, float)
CRUMB_RMS_NORM(float, Bf16)
CRUMB_RMS_NORM(Bf16, Bf16)
#undef CRUMB_RMS_NORM

}  // namespace crumb::kernels
