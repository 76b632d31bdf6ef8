#include "ptq/nearest.h"

#include <algorithm>
#include <numeric>

#include "kernels/torch/where.h"
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
  const torch::Tensor energies = energy.contiguous();
  const float* first = energies.const_data_ptr<float>();
  const std::vector<float> importance = input_importance({first, first + energies.numel()});
  const int64_t rows = w.size(0), cols = w.size(1), groups = format.groups(cols);
  quant::QuantizedTensor out{
      .format = format, .rows = rows, .cols = cols, .codes = {}, .scales = {}, .zero_points = {}};
  out.codes.resize(static_cast<size_t>(rows * cols));
  out.resize_groups();
  kernels::torch_executor().run(rows, 8, [&](int64_t begin, int64_t end, int) {
    const auto part = quant::round_to_nearest(w.const_data_ptr<float>() + begin * cols, end - begin, cols, format, init,
                                              importance.data());
    std::ranges::copy(part.codes, out.codes.begin() + begin * cols);
    for (size_t i = 0; i < part.scales.size(); ++i)
      out.set_group(static_cast<size_t>(begin * groups) + i, part.group(i));
  });
  return out;
}

std::vector<float> input_importance(const std::vector<float>& mean_squares) {
  constexpr double kLeastShare = 0.01;
  const double mean = std::accumulate(mean_squares.begin(), mean_squares.end(), 0.0) /
                      static_cast<double>(std::max<size_t>(1, mean_squares.size()));
  std::vector<float> importance;
  for (const float square : mean_squares)
    importance.push_back(std::max(static_cast<float>(square + kLeastShare * mean), 1e-30f));
  return importance;
}

std::shared_ptr<BlockMethod> make_weighted_nearest(quant::ScaleInit init, double token_cap) {
  return std::make_shared<WeightedNearest>(init, token_cap);
}

}  // namespace crumb::ptq
