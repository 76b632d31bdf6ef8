// Compiled without errno for sqrt, so that the loop becomes vector code.
#include "train/adamw_update.h"

#include <cmath>

namespace crumb::train {

void adamw_update(const AdamWStep& step, int64_t n, const float* __restrict__ gradient, float* __restrict__ weight,
                  float* __restrict__ m, float* __restrict__ v) {
  const float keep1 = 1.0F - step.beta1, keep2 = 1.0F - step.beta2;
  for (int64_t i = 0; i < n; ++i) {
    const float g = gradient[i] * step.gradient_factor;
    m[i] = step.beta1 * m[i] + keep1 * g;
    v[i] = step.beta2 * v[i] + keep2 * g * g;
    weight[i] = weight[i] * step.decay - step.step_size * m[i] / (std::sqrt(v[i]) * step.root_correction + step.eps);
  }
}

}  // namespace crumb::train
