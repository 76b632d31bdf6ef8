#include "qat/quant_linear.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>

#include "core/common/error.h"
#include "kernels/torch/seq.h"
#include "qat/seq_linear.h"
#include "quant/scale_search.h"

namespace crumb::qat {
namespace {

/// The grids that can be trained, and by what.
struct Trainable {
  quant::Grid grid;
  QuantLinearMaker (*make)(const QatMethod& method);
};
const std::array kTrainable = {Trainable{quant::Grid::seq, seq_linear_maker}};

/// `key`: of the job, that names the grid.
const Trainable& find_trainable(quant::Grid grid, const std::string& key) {
  const auto found = std::ranges::find(kTrainable, grid, &Trainable::grid);
  if (found != kTrainable.end()) return *found;
  std::vector<std::string_view> names;
  for (const auto& entry : kTrainable) names.push_back(entry.grid.facts().name);
  user_error("{}: training knows {} only, got {}", key, fmt::join(names, ", "), grid.facts().name);
}

}  // namespace

int64_t QuantLinear::clamped_scales() const {
  const torch::NoGradGuard no_grad;
  const torch::Tensor w = weight.to(torch::kCPU).contiguous();
  const torch::Tensor scale = kernels::round_scale(scales()).to(torch::kCPU).contiguous();
  return quant::count_clamped(w.const_data_ptr<float>(), scale.const_data_ptr<float>(), w.size(0), w.size(1),
                              w.size(1) / scale.size(1));
}

std::vector<std::pair<std::string, std::shared_ptr<QuantLinear>>> quant_linears(const model::Decoder& decoder) {
  std::vector<std::pair<std::string, std::shared_ptr<QuantLinear>>> out;
  for (const auto& [name, linear] : decoder.linears()) {
    if (auto quantized = std::dynamic_pointer_cast<QuantLinear>(linear)) out.emplace_back(name, std::move(quantized));
  }
  return out;
}

QuantLinearMaker quant_linear_maker(const QatMethod& method) {
  method.check();
  std::map<std::string_view, QuantLinearMaker> makers;  // by grid
  for (const auto& [grid, key] : method.linears.grids())
    makers[grid.facts().name] = find_trainable(grid, key).make(method);
  return [makers](const quant::QuantFormat& format, torch::Tensor weight, torch::Tensor bias) {
    return makers.at(format.grid.facts().name)(format, std::move(weight), std::move(bias));
  };
}

void QatMethod::check() const {
  for (const auto& [grid, key] : linears.grids()) find_trainable(grid, key);
  linears.check(scale_init());
  CRUMB_CHECK(start() == nullptr || is_there(*start()), "method.init: {} does not exist; it is none of {} either",
              start()->string(), fmt::join(init_names(), ", "));
}

}  // namespace crumb::qat
