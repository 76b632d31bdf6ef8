#include "ptq/nearest.h"

#include <algorithm>

#include "kernels/torch/executor.h"
#include "ptq/block_walk.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

class WeightedNearest : public LinearMethod {
 public:
  WeightedNearest(quant::ScaleInit init, double token_cap) : LinearMethod(token_cap), init_(init) {}

 protected:
  std::map<arch::Slot, LinearResult> round(const BlockWork& work, const std::map<arch::Slot, torch::Tensor>& weights,
                                           const InputStatistics& inputs) const override {
    std::map<arch::Slot, LinearResult> results;
    for (const auto& [slot, weight] : weights) {
      const auto mask = work.masks.find(slot);
      const torch::Tensor w = mask == work.masks.end() ? weight.clone() : masked(weight, mask->second);
      results[slot] = {.codes = weighted_nearest(w, inputs.gram.diagonal(), work.formats.at(slot), init_),
                       .masters = w};
    }
    return results;
  }

 private:
  quant::ScaleInit init_;
};

}  // namespace

quant::QuantizedTensor weighted_nearest(const torch::Tensor& w, const torch::Tensor& energy,
                                        const quant::QuantFormat& format, quant::ScaleInit init) {
  // A share of the mean, so that inputs the text never moves count for a little.
  constexpr double kLeastShare = 0.01;
  const torch::Tensor importance = (energy + kLeastShare * energy.mean()).clamp_min(1e-30).contiguous();
  const int64_t rows = w.size(0), cols = w.size(1), groups = format.groups(cols);
  quant::QuantizedTensor out{
      .format = format, .rows = rows, .cols = cols, .codes = {}, .scales = {}, .zero_points = {}};
  out.codes.resize(static_cast<size_t>(rows * cols));
  out.scales.resize(static_cast<size_t>(rows * groups));
  if (format.has_zero_points()) out.zero_points.resize(out.scales.size());
  kernels::torch_executor().run(rows, 8, [&](int64_t begin, int64_t end, int) {
    const auto part = quant::round_to_nearest(w.const_data_ptr<float>() + begin * cols, end - begin, cols, format, init,
                                              importance.const_data_ptr<float>());
    std::ranges::copy(part.codes, out.codes.begin() + begin * cols);
    std::ranges::copy(part.scales, out.scales.begin() + begin * groups);
    if (format.has_zero_points()) std::ranges::copy(part.zero_points, out.zero_points.begin() + begin * groups);
  });
  return out;
}

std::shared_ptr<BlockMethod> make_weighted_nearest(quant::ScaleInit init, double token_cap) {
  return std::make_shared<WeightedNearest>(init, token_cap);
}

}  // namespace crumb::ptq
