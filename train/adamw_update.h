// The arithmetic of AdamW on plain arrays.
#pragma once

#include <cstdint>

namespace crumb::train {

/// Constants of one step.
struct AdamWStep {
  float gradient_factor = 1;
  float beta1 = 0.9F, beta2 = 0.95F;
  float eps = 1e-8F;
  float decay = 1;            // 1 - lr * weight_decay
  float step_size = 0;        // lr / (1 - beta1^t)
  float root_correction = 1;  // 1 / sqrt(1 - beta2^t)
};

/// Updates n weights and their moments in place.
void adamw_update(const AdamWStep& step, int64_t n, const float* gradient, float* weight, float* m, float* v);

}  // namespace crumb::train
