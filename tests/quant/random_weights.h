// Rows of random weights, and what is best for them by trying everything.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "core/common/rng.h"
#include "quant/grid.h"

namespace crumb::testing {

inline std::vector<float> draw(int64_t n, uint64_t stream, const std::function<double(const Rng&, uint64_t)>& law) {
  const Rng rng(11, stream);
  std::vector<float> out(static_cast<size_t>(n));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(law(rng, i));
  return out;
}
inline double gaussian(const Rng& rng, uint64_t i) { return 0.02 * rng.normal(i); }
/// Student's t with 3 degrees of freedom.
inline double heavy(const Rng& rng, uint64_t i) {
  const double a = rng.normal(4 * i + 1), b = rng.normal(4 * i + 2), c = rng.normal(4 * i + 3);
  return rng.normal(4 * i) / std::sqrt((a * a + b * b + c * c) / 3);
}

inline float scale_of(const quant::QuantFormat& format, const std::vector<float>& w, quant::ScaleInit init,
                      const float* importance = nullptr) {
  return format.grid->find_scale(w.data(), std::ssize(w), format, init, importance).scale;
}
inline std::vector<uint8_t> codes_of(const quant::QuantFormat& format, const std::vector<float>& w, float scale) {
  std::vector<uint8_t> codes(w.size());
  format.grid->nearest_codes(w.data(), std::ssize(w), format, {scale}, codes.data());
  return codes;
}

/// The distance from x to the nearest of ascending `levels`.
inline double distance_to_nearest(const std::vector<float>& levels, double x) {
  const auto above = std::ranges::lower_bound(levels, x);
  double best = std::numeric_limits<double>::infinity();
  if (above != levels.end()) best = *above - x;
  if (above != levels.begin()) best = std::min(best, x - *(above - 1));
  return best;
}

/// sum importance * (w - nearest level)^2 at a scale; importance may be empty: all 1.
inline double squared_error(const std::vector<float>& levels, const std::vector<float>& w, double scale,
                            const std::vector<float>& importance = {}) {
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i)
    sum += (importance.empty() ? 1 : importance[i]) * std::pow(scale * distance_to_nearest(levels, w[i] / scale), 2);
  return sum;
}

/// The least over every scale of 6 significant bits in [2^-17, 2^14].
inline double least_squared_error(const std::vector<float>& levels, const std::vector<float>& w,
                                  const std::vector<float>& importance = {}) {
  double best = std::numeric_limits<double>::infinity();
  for (int exponent = -17; exponent < 14; ++exponent) {
    for (int mantissa = 32; mantissa < 64; ++mantissa)
      best = std::min(best, squared_error(levels, w, std::ldexp(mantissa, exponent - 5), importance));
  }
  return best;
}

}  // namespace crumb::testing
