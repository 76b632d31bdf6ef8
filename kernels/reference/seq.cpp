#include "kernels/seq.h"

#include <cmath>

namespace crumb::kernels::reference {
namespace {

int code_of(double w, double s) {
  if (w >= 0) return w > s ? 3 : 2;
  return w > -s ? 1 : 0;  // NaN too
}

double level_of(double w, double s) {
  constexpr double kLevels[] = {-1.5, -0.5, 0.5, 1.5};
  return std::isnan(w) ? w : kLevels[code_of(w, s)] * s;
}

}  // namespace

void seq_forward(const float* w, const float* scale, int64_t rows, int64_t cols, int64_t group_size, float* y,
                 uint8_t* codes) {
  for (int64_t i = 0; i < rows * cols; ++i) {
    const float s = round_scale(scale[i / group_size]);
    if (codes != nullptr) codes[i] = static_cast<uint8_t>(code_of(w[i], s));
    if (y != nullptr) y[i] = static_cast<float>(level_of(w[i], s));
  }
}

void seq_backward(const float* w, const float* scale, const float* grad_y, int64_t rows, int64_t cols,
                  int64_t group_size, OutsideGradient outside, float* grad_w, float* grad_log_scale) {
  for (int64_t group = 0; group < rows * cols / group_size; ++group) {
    const float s = round_scale(scale[group]);
    double sum = 0;
    for (int64_t i = group * group_size; i < (group + 1) * group_size; ++i) {
      const double g = grad_y[i];
      const double level = level_of(w[i], s);
      const bool inside = std::fabs(w[i]) <= kSeqRange * s;
      sum += inside ? g * (level - w[i]) : g * level;
      grad_w[i] = inside || outside == OutsideGradient::ste ? grad_y[i] : 0.0f;
    }
    grad_log_scale[group] = static_cast<float>(sum);
  }
}

}  // namespace crumb::kernels::reference
