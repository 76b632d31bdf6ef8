#include "train/muon.h"

#include <algorithm>
#include <cmath>

namespace crumb::train {

torch::Tensor orthogonalized(const torch::Tensor& m, torch::ScalarType compute) {
  constexpr int kSteps = 5;
  constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;
  const bool is_tall = m.size(0) > m.size(1);
  torch::Tensor x = (is_tall ? m.t() : m) / m.norm().clamp_min(1e-30);
  x = x.to(compute).contiguous();
  for (int step = 0; step < kSteps; ++step) {
    const torch::Tensor gram = x.mm(x.t());
    x = torch::addmm(x, gram.mul(kB).addmm_(gram, gram, 1, kC), x, kA);
  }
  return (is_tall ? x.t() : x).to(torch::kFloat32);
}

double muon_step_size(int64_t rows, int64_t cols) { return 0.2 * std::sqrt(static_cast<double>(std::max(rows, cols))); }

}  // namespace crumb::train
