#include "ptq/awq.h"

#include <limits>

#include "ptq/channel_scales.h"
#include "ptq/nearest.h"

namespace crumb::ptq {
namespace {

using torch::Tensor;

/// Outputs of a linear that are looked at for each alpha, spread evenly; the winner is compared with no scales by all.
constexpr int64_t kOutputs = 128, kAllOutputs = std::numeric_limits<int64_t>::max();

/// Mean |w| of each column, of all linears.
Tensor weight_size(const ScaledGroup& group) {
  Tensor sum = torch::zeros_like(group.inputs().mean_abs);
  int64_t rows = 0;
  for (const auto& [slot, w] : group.weights()) {
    sum.add_(w.abs().sum(0));
    rows += w.size(0);
  }
  return sum.div_(rows);
}

class AwqSearch : public ChannelScaleSearch {
 public:
  AwqSearch(quant::ScaleInit init, int64_t grid_points) : init_(init), grid_points_(grid_points) {}

  Tensor find(const ScaledGroup& group) const override {
    const Tensor x = channel_size(group.mean(group.inputs().mean_abs)),
                 w = channel_size(group.mean(weight_size(group)));
    const Tensor none = group.fusible(torch::ones_like(x));
    Tensor best = none;
    double least = error(group, none, kOutputs);
    for (int64_t i = 0; i < grid_points_; ++i) {
      const double alpha = static_cast<double>(i) / static_cast<double>(grid_points_);
      const Tensor by_input = x.pow(alpha);
      for (const Tensor& wanted : {by_input, by_input / w.pow(1 - alpha)}) {
        const Tensor s = group.fusible(wanted);
        const double error_now = error(group, s, kOutputs);
        if (error_now >= least) continue;
        least = error_now;
        best = s;
      }
    }
    return error(group, best, kAllOutputs) < error(group, none, kAllOutputs) ? best : none;
  }

 private:
  /// Of the group's outputs, each linear's relative to its output.
  double error(const ScaledGroup& group, const Tensor& scales, int64_t outputs) const {
    const Tensor s = group.columns(scales), &gram = group.inputs().gram, energy = gram.diagonal() / s.square();
    double sum = 0;
    for (const auto& [slot, all] : group.weights()) {
      const Tensor w = spread_rows(all, outputs);
      const Tensor q = dequantized(weighted_nearest(w * s, energy, group.format(slot), init_)) / s;
      sum += output_error(w, q, gram).relative();
    }
    return sum;
  }

  quant::ScaleInit init_;
  int64_t grid_points_;
};

}  // namespace

std::shared_ptr<const ChannelScaleSearch> make_awq_search(quant::ScaleInit init, int64_t grid_points) {
  return std::make_shared<AwqSearch>(init, grid_points);
}

void AwqMethod::check() const { linears.check(quant::scale_init_from_name(init)); }

Method AwqMethod::make() const {
  const quant::ScaleInit scales = quant::scale_init_from_name(init);
  return make_scaled(make_awq_search(scales, grid_points),
                     rounding == "gptq" ? make_gptq(gptq, scales) : make_weighted_nearest(scales));
}

}  // namespace crumb::ptq
