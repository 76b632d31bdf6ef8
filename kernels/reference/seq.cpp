#include "kernels/seq.h"

#include <cmath>

namespace crumb::kernels::reference {

void seq_forward(const float* w, const float* scale, int64_t rows, int64_t cols, int64_t group_size, float* y,
                 uint8_t* codes) {
  for (int64_t i = 0; i < rows * cols; ++i) {
    const float s = round_scale(scale[i / group_size]);
    const int code = seq_code(w[i], s);
    if (codes != nullptr) codes[i] = static_cast<uint8_t>(code);
    if (y != nullptr) y[i] = std::isnan(w[i]) ? w[i] : seq_level(code, s);
  }
}

void seq_backward(const float* w, const float* scale, const float* grad_y, int64_t rows, int64_t cols,
                  int64_t group_size, OutsideGradient outside, float* grad_w, float* grad_log_scale) {
  for (int64_t group = 0; group < rows * cols / group_size; ++group) {
    const float s = round_scale(scale[group]);
    double sum = 0;
    for (int64_t i = group * group_size; i < (group + 1) * group_size; ++i) {
      const double g = grad_y[i];
      const double level = std::isnan(w[i]) ? w[i] : seq_level(seq_code(w[i], s), s);
      const bool inside = std::fabs(w[i]) <= kSeqRange * s;
      sum += inside ? g * (level - w[i]) : g * level;
      grad_w[i] = inside || outside == OutsideGradient::ste ? grad_y[i] : 0.0f;
    }
    grad_log_scale[group] = static_cast<float>(sum);
  }
}

}  // namespace crumb::kernels::reference
