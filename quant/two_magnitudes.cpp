#include "quant/two_magnitudes.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "quant/scale_numbers.h"
#include "quant/scale_search.h"

namespace crumb::quant {
namespace {

constexpr int kCandidates = 9 * kScalesAnOctave;

/// How much importance the |w| between neighbouring thresholds have, and sum importance * |w|.
struct Bin {
  double count = 0, sum = 0;
};

}  // namespace

/// The squared error of a scale, less the constant sum w^2, needs only count and sum of the |w| up to its threshold:
/// those have the inner level, the others the outer one. Thresholds are a power of two times candidates, so one pass
/// that sorts the |w| into bins by their top bits gives all candidates exactly, in O(n + candidates). A weight of
/// importance h counts h times.
float least_squares_scale(const float* w, int64_t n, const TwoMagnitudes& levels, const float* importance) {
  const auto in_scales = static_cast<float>(1 / levels.threshold());
  const float most = std::min(in_scales * max_abs(w, n), kernels::kMaxScale);
  if (most <= kernels::kMinScale) return kernels::kMinScale;
  const int last = scale_number_below(most);
  const int first = std::max(last - kCandidates + 1, kLeastScaleNumber);
  std::array<Bin, kCandidates + 1>
      bins{};  // bin b: weights up to candidate first + b that are above the one before; last: above all
  for (int64_t i = 0; i < n; ++i) {
    const float x = std::fabs(w[i]);
    Bin& bin = bins[static_cast<size_t>(std::clamp(scale_number_above(in_scales * x), first, last + 1) - first)];
    const double times = importance == nullptr ? 1.0 : importance[i];
    bin.count += times;
    bin.sum += times * x;
  }
  Bin all;
  for (const auto& bin : bins) all = {all.count + bin.count, all.sum + bin.sum};
  Bin inner;
  double best_error = 0;
  float best = 0;
  for (int number = first; number <= last; ++number) {
    const Bin& bin = bins[static_cast<size_t>(number - first)];
    inner = {inner.count + bin.count, inner.sum + bin.sum};
    const Bin outer = {all.count - inner.count, all.sum - inner.sum};
    const double s = scale_of_number(number);
    const double error =
        s * s * (levels.inner * levels.inner * inner.count + levels.outer * levels.outer * outer.count) -
        2 * s * (levels.inner * inner.sum + levels.outer * outer.sum);
    if (best == 0 || error <= best_error) {
      best_error = error;
      best = scale_of_number(number);
    }
  }
  return best;
}

}  // namespace crumb::quant
