#include "ptq/hqq.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/seq.h"
#include "kernels/vector8.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

using kernels::magnitude;
using kernels::Vec8;
using quant::GroupScale;
using quant::QuantFormat;

/// x^power, x >= 0; finite at 0.
Vec8 power_of(Vec8 x, float power) {
  const Vec8 least = kernels::broadcast(1e-30f);
  return kernels::exp(kernels::log(kernels::max(x, least)) * power);
}

/// Half-quadratic splitting of groups of a length, one after the other.
class Splitting {
 public:
  Splitting(const QuantFormat& format, int64_t n, const HalfQuadratic& options)
      : format_(format),
        levels_(format.levels()),
        options_(options),
        n_(n),
        codes_(static_cast<size_t>(n)),
        positions_(static_cast<size_t>(n)) {}

  GroupScale run(const float* w, const GroupScale& start) {
    GroupScale best = start, group = start, tried = start;
    double best_norm = norm(w, start);
    auto beta = static_cast<float>(options_.beta);
    for (int64_t i = 0; i < options_.iterations; ++i, beta *= static_cast<float>(options_.beta_growth)) {
      const auto fitted = fit(w, group, beta);
      if (!fitted) break;
      group = *fitted;
      const GroupScale rounded = this->rounded(group);
      if (rounded == tried) continue;
      tried = rounded;
      const double of_rounded = norm(w, rounded);
      if (of_rounded < best_norm) best = rounded;
      best_norm = std::min(best_norm, of_rounded);
    }
    return best;
  }

 private:
  /// Puts every weight at the nearest level, less the zero point.
  void place(const float* w, const GroupScale& group) {
    format_.grid->nearest_codes(w, n_, format_, group, codes_.data());
    const auto zero = static_cast<float>(group.zero_point);
    for (size_t i = 0; i < codes_.size(); ++i) positions_[i] = levels_[codes_[i]] - zero;
  }

  /// As it is stored. A minimum moves so that the middle of the positions stays where it is.
  GroupScale rounded(const GroupScale& group) const {
    GroupScale out{kernels::round_scale(group.scale), group.zero_point};
    if (format_.has_minima)
      out.minimum = quant::round_minimum(group.minimum + (group.scale - out.scale) * mean_position_);
    return out;
  }

  double norm(const float* w, const GroupScale& group) {
    place(w, group);
    const auto p = static_cast<float>(options_.p);
    Vec8 sum = kernels::broadcast(0);
    kernels::for_each8(n_, [&](int64_t i, int64_t count) {
      const Vec8 x = kernels::load(w + i, count, group.minimum) - group.minimum;
      const Vec8 error = x - kernels::load(&positions_[static_cast<size_t>(i)], count, 0) * group.scale;
      sum += power_of(magnitude(error), p);
    });
    return kernels::sum(sum);
  }

  /// Least squares of the weights, less the errors that are given up, on their positions l: the scale is not rounded.
  /// Nothing where no scale above 0 is best.
  std::optional<GroupScale> fit(const float* w, const GroupScale& group, float beta) {
    place(w, group);
    const auto power = static_cast<float>(options_.p - 1);
    Vec8 sum_t = kernels::broadcast(0), sum_l = sum_t, sum_tl = sum_t, sum_ll = sum_t;
    kernels::for_each8(n_, [&](int64_t i, int64_t count) {
      const Vec8 x = kernels::load(w + i, count, group.minimum) - group.minimum;
      const Vec8 l = kernels::load(&positions_[static_cast<size_t>(i)], count, 0);
      const Vec8 error = x / group.scale - l, size = magnitude(error);
      const Vec8 left = kernels::max(size - power_of(size, power) / beta, kernels::broadcast(0));
      const Vec8 t = x - (error < 0.0f ? -left : left) * group.scale;
      sum_t += t;
      sum_l += l;
      sum_tl += t * l;
      sum_ll += l * l;
    });
    const double t = kernels::sum(sum_t), l = kernels::sum(sum_l), n = static_cast<double>(n_);
    double tl = kernels::sum(sum_tl), ll = kernels::sum(sum_ll);
    GroupScale out = group;
    if (format_.has_minima) {  // t and l from the minimum: the line moves and turns
      const double covariance = tl - t * l / n, variance = ll - l * l / n;
      if (!(covariance > 0) || !(variance > 0)) return std::nullopt;
      mean_position_ = static_cast<float>(l / n);
      out.scale = clamped_scale(covariance / variance);
      out.minimum = static_cast<float>(group.minimum + (t - out.scale * l) / n);
      return out;
    }
    if (format_.has_zero_points()) {
      const double covariance = tl - t * l / n, variance = ll - l * l / n;
      if (covariance > 0 && variance > 0) {
        const double zero = group.zero_point + (l - t * variance / covariance) / n;
        out.zero_point = static_cast<int32_t>(std::nearbyint(
            std::clamp(zero, static_cast<double>(levels_.front()), static_cast<double>(levels_.back()))));
      }
      const double moved = out.zero_point - group.zero_point;
      tl -= moved * t;
      ll += moved * (n * moved - 2 * l);
    }
    if (!(tl > 0) || !(ll > 0)) return std::nullopt;
    out.scale = clamped_scale(tl / ll);
    return out;
  }

  static float clamped_scale(double scale) {
    return static_cast<float>(
        std::clamp(scale, static_cast<double>(kernels::kMinScale), static_cast<double>(kernels::kMaxScale)));
  }

  const QuantFormat& format_;
  const std::vector<float> levels_;
  const HalfQuadratic& options_;
  const int64_t n_;
  std::vector<uint8_t> codes_;
  std::vector<float> positions_;
  float mean_position_ = 0;  // of the last fit
};

class Hqq : public RowMethod {
 public:
  Hqq(quant::ScaleInit init, const HalfQuadratic& options) : init_(init), options_(options) {}

  quant::QuantizedTensor quantize(const float* w, int64_t rows, int64_t cols, const QuantFormat& format,
                                  const arch::TensorDesc& /*tensor*/) const override {
    const int64_t group_cols = format.group_cols(cols);
    quant::QuantizedTensor out = quant::find_scales(w, rows, cols, format, init_);
    Splitting splitting(format, group_cols, options_);
    for (size_t i = 0; i < out.scales.size(); ++i) {
      out.set_group(i, splitting.run(w + static_cast<int64_t>(i) * group_cols, out.group(i)));
    }
    quant::set_nearest_codes(w, out);
    return out;
  }

 private:
  quant::ScaleInit init_;
  HalfQuadratic options_;
};

}  // namespace

GroupScale half_quadratic_scale(const float* w, int64_t n, const QuantFormat& format, const GroupScale& start,
                                const HalfQuadratic& options) {
  return Splitting(format, n, options).run(w, start);
}

void HqqMethod::check() const { linears.check(quant::scale_init_from_name(init)); }

Method HqqMethod::make() const { return std::make_unique<Hqq>(quant::scale_init_from_name(init), search); }

}  // namespace crumb::ptq
