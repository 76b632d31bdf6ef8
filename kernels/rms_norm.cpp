#include "kernels/rms_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace crumb::kernels {
namespace {

constexpr int64_t kRowsPerSum = 64;  // rows whose weight gradients are added before the sums of all such blocks are

template <class T>
float inverse_rms(const T* x, int64_t cols, float eps) {
  Vec8 squares = broadcast(0);
  for_each8(cols, [&](int64_t i, int64_t count) {
    const Vec8 v = load(x + i, count, 0);
    squares += v * v;
  });
  return 1.0f / std::sqrt(sum(squares) / static_cast<float>(cols) + eps);
}

/// Of one row; adds its share to grad_weight.
template <class In, class Out>
void backward_row(const In* x, const float* weight, const Out* grad_y, float eps, int64_t cols, In* grad_x,
                  float* grad_weight) {
  const float inverse = inverse_rms(x, cols, eps);
  Vec8 products = broadcast(0);
  for_each8(cols, [&](int64_t i, int64_t count) {
    products += load(x + i, count, 0) * load(grad_y + i, count, 0) * load(weight + i, count, 0);
  });
  const float pull = sum(products) / static_cast<float>(cols) * inverse * inverse;
  for_each8(cols, [&](int64_t i, int64_t count) {
    const Vec8 v = load(x + i, count, 0), g = load(grad_y + i, count, 0);
    store(grad_x + i, (g * load(weight + i, count, 0) - v * pull) * inverse, count);
    if (grad_weight != nullptr) store(grad_weight + i, load(grad_weight + i, count, 0) + g * v * inverse, count);
  });
}

}  // namespace

template <class In, class Out>
void rms_norm_forward(const In* x, const float* weight, float eps, int64_t rows, int64_t cols, Out* y,
                      const ParallelFor& parallel_for) {
  parallel_for(rows, std::max<int64_t>(1, 16384 / cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const In* in = x + r * cols;
      Out* out = y + r * cols;
      const float inverse = inverse_rms(in, cols, eps);
      for_each8(cols, [&](int64_t i, int64_t count) {
        store(out + i, load(in + i, count, 0) * inverse * load(weight + i, count, 0), count);
      });
    }
  });
}

template <class In, class Out>
void rms_norm_backward(const In* x, const float* weight, const Out* grad_y, float eps, int64_t rows, int64_t cols,
                       In* grad_x, float* grad_weight, const ParallelFor& parallel_for) {
  const int64_t blocks = (rows + kRowsPerSum - 1) / kRowsPerSum;
  std::vector<float> sums(grad_weight == nullptr ? 0 : static_cast<size_t>(blocks * cols), 0.0f);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin * kRowsPerSum; r < std::min(end * kRowsPerSum, rows); ++r) {
      float* sum_of_block = grad_weight == nullptr ? nullptr : sums.data() + r / kRowsPerSum * cols;
      backward_row(x + r * cols, weight, grad_y + r * cols, eps, cols, grad_x + r * cols, sum_of_block);
    }
  });
  if (grad_weight == nullptr) return;
  for (int64_t c = 0; c < cols; ++c) {
    double total = 0;
    for (int64_t b = 0; b < blocks; ++b) total += sums[static_cast<size_t>(b * cols + c)];
    grad_weight[c] = static_cast<float>(total);
  }
}

#define CRUMB_RMS_NORM(In, Out)                                                                               \
  template void rms_norm_forward(const In*, const float*, float, int64_t, int64_t, Out*, const ParallelFor&); \
  template void rms_norm_backward(const In*, const float*, const Out*, float, int64_t, int64_t, In*, float*,  \
                                  const ParallelFor&);
CRUMB_RMS_NORM(float, float)
CRUMB_RMS_NORM(float, Bf16)
CRUMB_RMS_NORM(Bf16, Bf16)
#undef CRUMB_RMS_NORM

}  // namespace crumb::kernels
