#include "ptq/smoothquant.h"

#include <algorithm>

#include "ptq/channel_scales.h"
#include "ptq/nearest.h"

namespace crumb::ptq {
namespace {

using torch::Tensor;

class SmoothQuantSearch : public ChannelScaleSearch {
 public:
  SmoothQuantSearch(quant::ScaleInit init, std::optional<double> alpha, int64_t grid_points)
      : init_(init), alpha_(alpha), grid_points_(grid_points) {}

  Tensor find(const ScaledGroup& group) const override {
    const Tensor x = channel_size(group.max(group.inputs().max_abs)),
                 w = channel_size(group.max(largest_weight(group)));
    const auto scales = [&](double alpha) { return group.fusible(x.pow(alpha) / w.pow(1 - alpha)); };
    if (alpha_) return scales(*alpha_);
    Tensor best = group.fusible(torch::ones_like(x));
    double least = error(group, best);
    for (int64_t i = 0; i < grid_points_; ++i) {
      const Tensor s = scales(static_cast<double>(i) / static_cast<double>(grid_points_ - 1));
      const double error_now = error(group, s);
      if (error_now >= least) continue;
      least = error_now;
      best = s;
    }
    return best;
  }

 private:
  static Tensor largest_weight(const ScaledGroup& group) {
    Tensor largest = torch::zeros_like(group.inputs().max_abs);
    for (const auto& [slot, w] : group.weights()) largest = torch::maximum(largest, w.abs().amax(0));
    return largest;
  }

  /// Of the group's outputs on its sample: the mean over tokens, relative to each token's output.
  double error(const ScaledGroup& group, const Tensor& scales) const {
    constexpr int64_t kOutputs = 128;  // of each linear, spread evenly
    const Tensor s = group.columns(scales), energy = group.inputs().gram.diagonal() / s.square();
    const Tensor& x = group.sample();
    const Tensor read = group.rounder() == nullptr ? x / s : rounded(x / s, *group.rounder());
    double sum = 0;
    for (const auto& [slot, all] : group.weights()) {
      const Tensor w = spread_rows(all, kOutputs);
      const Tensor q = dequantized(weighted_nearest(w * s, energy, group.format(slot), init_));
      const Tensor y = x.mm(w.t()), power = y.square().sum(1);
      const Tensor off = (read.mm(q.t()) - y).square().sum(1);
      sum += (off / power.clamp_min(1e-30)).mean().item<double>();
    }
    return sum;
  }

  quant::ScaleInit init_;
  std::optional<double> alpha_;
  int64_t grid_points_;
};

}  // namespace

std::shared_ptr<const ChannelScaleSearch> make_smoothquant_search(quant::ScaleInit init, std::optional<double> alpha,
                                                                  int64_t grid_points) {
  return std::make_shared<SmoothQuantSearch>(init, alpha, grid_points);
}

void SmoothQuantMethod::check() const { linears.check(quant::scale_init_from_name(init)); }

Method SmoothQuantMethod::make() const {
  const quant::ScaleInit scales = quant::scale_init_from_name(init);
  return make_scaled(make_smoothquant_search(scales, alpha.value, grid_points), make_weighted_nearest(scales));
}

}  // namespace crumb::ptq
