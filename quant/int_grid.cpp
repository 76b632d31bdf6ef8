// Integers of 2 to 8 bits: level = code, in a symmetric format code - 2^(bits-1).
#include <algorithm>
#include <array>
#include <cmath>

#include "core/common/error.h"
#include "kernels/seq.h"
#include "kernels/vector8.h"
#include "quant/grid.h"

namespace crumb::quant {
namespace {

using kernels::round_scale;
using kernels::Vec8;

constexpr float kOnes[8] = {1, 1, 1, 1, 1, 1, 1, 1};

/// round_half_even(w / scale) + zero_point, clamped to the grid; exact for quotients below 2^22, beyond them the clamp
/// decides. V: float or a vector of them; `same` gives one number in V.
template <class V, class Same>
inline V int_codes(V w, float scale, float zero_point, float top, const Same& same) {
  constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer
  const V limit = same(0x1p20f);
  V x = w / scale;
  x = x > limit ? limit : x;
  x = x < -limit ? -limit : x;
  V code = ((x + kMagic) - kMagic) + zero_point;
  code = code > top ? same(top) : code;
  return code < 0.0f ? same(0) : code;
}
Vec8 int_codes(Vec8 w, float scale, float zero_point, float top) {
  return int_codes(w, scale, zero_point, top, [](float x) { return kernels::broadcast(x); });
}

/// What is subtracted from codes: where a symmetric format has its 0, or the zero point.
float zero_of(const QuantFormat& format, const GroupScale& group) {
  return static_cast<float>(format.symmetric ? 1 << (format.bits - 1) : group.zero_point);
}

float top_of(const QuantFormat& format) { return static_cast<float>((1 << format.bits) - 1); }

/// sum importance * (w - value)^2
double int_error(const float* w, int64_t n, const QuantFormat& format, const GroupScale& group,
                 const float* importance) {
  const float top = top_of(format), zero = zero_of(format, group);
  Vec8 sum = kernels::broadcast(0);
  kernels::for_each8(n, [&](int64_t i, int64_t count) {
    const Vec8 x = kernels::load(w + i, count, group.minimum) - group.minimum;
    const Vec8 error = x - (int_codes(x, group.scale, zero, top) - zero) * group.scale;
    sum += importance == nullptr ? error * error : error * error * kernels::load(importance + i, count, 0);
  });
  return kernels::sum(sum);
}

struct Range {
  float low, high;
};

/// Codes on [low, high]. Symmetric: on the larger side of it. With an integer zero point the range holds 0. With a
/// minimum the middle of the range stays where it is when the scale is rounded.
GroupScale scale_of_range(const Range& range, const QuantFormat& format) {
  const auto [low, high] = range;
  const float top = top_of(format);
  if (format.symmetric) return {round_scale(std::max(-low, high) / static_cast<float>((1 << (format.bits - 1)) - 1))};
  const float scale = round_scale((high - low) / top);
  if (!format.has_minima) return {scale, static_cast<int32_t>(std::clamp(std::nearbyint(-low / scale), 0.0f, top))};
  const bool is_narrow = high - low <= kernels::kMinScale * top;  // that of equal weights, of zeros among them
  return {.scale = scale, .minimum = quant::round_minimum(is_narrow ? low : low + (high - low - scale * top) / 2)};
}

/// The best of 80 ranges shrunk towards 0, down to 20 %.
GroupScale best_int_scale(const float* w, int64_t n, const Range& range, const QuantFormat& format,
                          const float* importance) {
  constexpr int kRanges = 80;
  constexpr float kLeast = 0.2f;
  GroupScale best{};
  double best_error = 0;
  for (int i = 0; i < kRanges; ++i) {
    const float share = 1.0f - (1.0f - kLeast) * static_cast<float>(i) / (kRanges - 1);
    const GroupScale candidate = scale_of_range({range.low * share, range.high * share}, format);
    if (i > 0 && candidate == best) continue;
    const double error = int_error(w, n, format, candidate, importance);
    if (i == 0 || error < best_error) {
      best = candidate;
      best_error = error;
    }
  }
  return best;
}

/// Weighted least squares of the weights on their codes by `group`: its scale, rounded, and the minimum that is best
/// with that. `group` where there is no such line.
GroupScale fitted(const float* w, int64_t n, const QuantFormat& format, const GroupScale& group,
                  const float* importance) {
  const float top = top_of(format);
  Vec8 sum = kernels::broadcast(0), sum_w = sum, sum_c = sum, sum_wc = sum, sum_cc = sum;
  kernels::for_each8(n, [&](int64_t i, int64_t count) {
    const Vec8 x = kernels::load(w + i, count, group.minimum) - group.minimum;
    const Vec8 code = int_codes(x, group.scale, 0, top);
    const Vec8 weight =
        importance == nullptr ? kernels::load(kOnes, count, 0) : kernels::load(importance + i, count, 0);
    sum += weight;
    sum_w += weight * x;
    sum_c += weight * code;
    sum_wc += weight * x * code;
    sum_cc += weight * code * code;
  });
  const double all = kernels::sum(sum), x = kernels::sum(sum_w), c = kernels::sum(sum_c);
  const double covariance = all * kernels::sum(sum_wc) - x * c, variance = all * kernels::sum(sum_cc) - c * c;
  if (!(covariance > 0) || !(variance > 0)) return group;
  const float scale = round_scale(static_cast<float>(covariance / variance));
  return {.scale = scale, .minimum = quant::round_minimum(static_cast<float>(group.minimum + (x - scale * c) / all))};
}

/// The range, and 24 shrunk towards its middle, down to 40 %, each moved to the line of least squares; the best of them
/// then moves on while it gets better.
GroupScale best_scale_and_minimum(const float* w, int64_t n, const Range& range, const QuantFormat& format,
                                  const float* importance) {
  constexpr int kRanges = 24, kMoves = 8;
  constexpr float kLeast = 0.4f;
  GroupScale best = scale_of_range(range, format);
  double best_error = int_error(w, n, format, best, importance);
  const auto take = [&](const GroupScale& candidate) {
    if (candidate == best) return false;
    const double error = int_error(w, n, format, candidate, importance);
    if (!(error < best_error)) return false;
    best = candidate;
    best_error = error;
    return true;
  };
  const float middle = range.low + (range.high - range.low) / 2;
  for (int i = 0; i < kRanges; ++i) {
    const float share = 1.0f - (1.0f - kLeast) * static_cast<float>(i) / (kRanges - 1);
    const Range shrunk{middle + (range.low - middle) * share, middle + (range.high - middle) * share};
    take(fitted(w, n, format, scale_of_range(shrunk, format), importance));
  }
  for (int i = 0; i < kMoves && take(fitted(w, n, format, best, importance)); ++i) {
  }
  return best;
}

constexpr std::array kInits = {ScaleInit::absmax, ScaleInit::mse};
constexpr GridFacts kFacts = {.name = "int",
                              .values = "integers * scale",
                              .least_bits = 2,
                              .most_bits = 8,
                              .may_be_asymmetric = true,
                              .inits = kInits};

class IntGrid final : public GridDefinition {
 public:
  constexpr IntGrid() : GridDefinition(kFacts) {}

  std::vector<float> levels(const QuantFormat& format) const override {
    const int zero = format.symmetric ? 1 << (format.bits - 1) : 0;
    std::vector<float> out;
    for (int code = 0; code < 1 << format.bits; ++code) out.push_back(static_cast<float>(code - zero));
    return out;
  }

  /// Symmetric: codes 0..2^bits-1 around 2^(bits-1), absmax: scale = max|w| / (2^(bits-1) - 1). Asymmetric:
  /// [min(w, 0), max(w, 0)] on the whole range, or [min(w), max(w)] where the format has minima. mse: the best of many
  /// shrunk ranges.
  GroupScale find_scale(const float* w, int64_t n, const QuantFormat& format, ScaleInit init,
                        const float* importance) const override {
    Range range{0, 0};
    if (format.has_minima) range = {w[0], w[0]};
    for (int64_t i = 0; i < n; ++i) range = {std::min(range.low, w[i]), std::max(range.high, w[i])};
    CRUMB_ASSERT(init == ScaleInit::absmax || init == ScaleInit::mse);
    if (init == ScaleInit::absmax) return scale_of_range(range, format);
    return format.has_minima ? best_scale_and_minimum(w, n, range, format, importance)
                             : best_int_scale(w, n, range, format, importance);
  }

  void nearest_codes(const float* w, int64_t n, const QuantFormat& format, const GroupScale& group,
                     uint8_t* codes) const override {
    const float top = top_of(format), zero = zero_of(format, group);
    kernels::for_each8(n, [&](int64_t i, int64_t count) {
      const Vec8 code = int_codes(kernels::load(w + i, count, 0) - group.minimum, group.scale, zero, top);
      for (int64_t lane = 0; lane < count; ++lane) codes[i + lane] = static_cast<uint8_t>(code[lane]);
    });
  }

  void nearest_codes_of_column(const float* w, int64_t n, const QuantFormat& format, const GroupScale* groups,
                               uint8_t* codes) const override {
    const float top = top_of(format);
    for (int64_t i = 0; i < n; ++i) {
      const float zero = zero_of(format, groups[i]), x = w[i] - groups[i].minimum;
      codes[i] = static_cast<uint8_t>(int_codes(x, groups[i].scale, zero, top, [](float same) { return same; }));
    }
  }
};

constinit const IntGrid kIntGrid;

}  // namespace

constinit const Grid Grid::intn(kIntGrid);

}  // namespace crumb::quant
