// Compiled without errno for sqrt, so that the loop becomes vector code.
#include "kernels/adamw.h"

#include <algorithm>
#include <cmath>

namespace crumb::kernels {
namespace {

constexpr int64_t kGrain = 16384;  // weights a thread takes at least

void update(const AdamWStep& step, int64_t n, const float* __restrict__ gradient, float* __restrict__ weight,
            float* __restrict__ m, float* __restrict__ v) {
  const float keep1 = 1.0F - step.beta1, keep2 = 1.0F - step.beta2, stays = 1.0F - step.decay;
  for (int64_t i = 0; i < n; ++i) {
    const float g = gradient[i] * step.gradient_factor;
    m[i] = step.beta1 * m[i] + keep1 * g;
    v[i] = step.beta2 * v[i] + keep2 * g * g;
    weight[i] = weight[i] * stays - step.step_size * m[i] / (std::sqrt(v[i]) * step.root_correction + step.eps);
  }
}

}  // namespace

void adamw_update(const AdamWStep& step, int64_t rows, int64_t cols, const float* row_factor, const float* gradient,
                  float* weight, float* m, float* v, Executor& executor) {
  const auto update_part = [&](const AdamWStep& of_part, int64_t begin, int64_t end) {
    update(of_part, end - begin, gradient + begin, weight + begin, m + begin, v + begin);
  };
  if (row_factor == nullptr) {
    executor.run(rows * cols, kGrain, [&](int64_t begin, int64_t end, int) { update_part(step, begin, end); });
    return;
  }
  // Each row is a short array with its own step size.
  executor.run(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, cols)), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      AdamWStep of_row = step;
      of_row.step_size *= row_factor[row];
      of_row.decay *= row_factor[row];
      update_part(of_row, row * cols, (row + 1) * cols);
    }
  });
}

}  // namespace crumb::kernels
