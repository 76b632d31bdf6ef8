// The arithmetic of AdamW (Loshchilov and Hutter, arXiv:1711.05101) on plain arrays, one pass over memory:
//
//   g' = gradient_factor g,  m = beta1 m + (1 - beta1) g',  v = beta2 v + (1 - beta2) g'^2
//   w = w (1 - decay f) - step_size f m / (sqrt(v) root_correction + eps),  f the factor of the row
#pragma once

#include <cstdint>

#include "core/common/executor.h"

namespace crumb::kernels {

/// Constants of one step.
struct AdamWStep {
  float gradient_factor = 1;
  float beta1 = 0.9F, beta2 = 0.95F;
  float eps = 1e-8F;
  float decay = 0;            // lr * weight_decay
  float step_size = 0;        // lr / (1 - beta1^t)
  float root_correction = 1;  // 1 / sqrt(1 - beta2^t)
};

/// Updates weight, m and v [rows, cols] in place. row_factor [rows] multiplies the learning rate of each row; null: all
/// are 1.
void adamw_update(const AdamWStep& step, int64_t rows, int64_t cols, const float* row_factor, const float* gradient,
                  float* weight, float* m, float* v, Executor& executor);

}  // namespace crumb::kernels
