#include "qat/quant_linear.h"

#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>

#include "core/common/error.h"
#include "kernels/torch/seq.h"
#include "qat/lsq_linear.h"
#include "qat/seq_linear.h"
#include "quant/scale_search.h"

namespace crumb::qat {
namespace {

/// The grids that can be trained, and by what.
struct Trainable {
  quant::Grid grid;
  QuantLinearMaker (*make)(const QatMethod& method);
  bool on_any_device = false;
};
const std::array kTrainable = {Trainable{quant::Grid::seq, seq_linear_maker, true},
                               Trainable{quant::Grid::intn, lsq_linear_maker},
                               Trainable{quant::Grid::ternary, lsq_linear_maker}};

template <class Fits>
std::string names_of(const Fits& fits) {
  std::vector<std::string_view> names;
  for (const auto& entry : kTrainable) {
    if (fits(entry)) names.push_back(entry.grid.facts().name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

/// `key`: of the job, that names the grid.
const Trainable& find_trainable(quant::Grid grid, const std::string& key) {
  const auto found = std::ranges::find(kTrainable, grid, &Trainable::grid);
  if (found != kTrainable.end()) return *found;
  user_error("{}: training knows {} only, got {}", key, names_of([](const Trainable&) { return true; }),
             grid.facts().name);
}

}  // namespace

int64_t QuantLinear::clamped_scales() const {
  const torch::NoGradGuard no_grad;
  const torch::Tensor w = weight.to(torch::kCPU).contiguous();
  const torch::Tensor scale = kernels::round_scale(scales()).to(torch::kCPU).contiguous();
  return quant::count_clamped(w.const_data_ptr<float>(), scale.const_data_ptr<float>(), w.size(0), w.size(1),
                              {.group_size = w.size(1) / scale.size(1)});
}

void QuantLinear::set_mask(const std::vector<uint8_t>&) { CRUMB_ASSERT(false); }

torch::Tensor first_log_scales(const torch::Tensor& weight, const quant::QuantFormat& format, quant::ScaleInit init) {
  const int64_t cols = weight.size(1), group_cols = format.group_cols(cols);
  CRUMB_CHECK(group_cols > 0 && cols % group_cols == 0,
              "group_size: {} does not divide {}, the input size of the linear", format.group_size, cols);
  const torch::Tensor w = weight.detach().to(torch::kCPU).contiguous();
  torch::Tensor scale = torch::empty({w.size(0), cols / group_cols});
  const float* values = w.const_data_ptr<float>();
  float* scales = scale.data_ptr<float>();
  at::parallel_for(0, scale.numel(), std::max<int64_t>(1, 16384 / group_cols), [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group)
      scales[group] = format.grid->find_scale(values + group * group_cols, group_cols, format, init).scale;
  });
  return scale.log_().to(weight.device());
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

void check_device(const QatMethod& method, const std::string& device) {
  for (const auto& [grid, key] : method.linears.grids()) {
    CRUMB_CHECK(find_trainable(grid, key).on_any_device, "device: {} trains {} only, and {} is {}; use device: cpu",
                device, names_of([](const Trainable& entry) { return entry.on_any_device; }), key, grid.facts().name);
  }
}

void QatMethod::check() const {
  bool is_seq = true;
  for (const auto& [grid, key] : linears.grids()) {
    find_trainable(grid, key);
    is_seq = is_seq && grid == quant::Grid::seq;
  }
  linears.check(scale_init());
  linears.check_symmetric("training knows no zero points");
  CRUMB_CHECK(is_seq || outside_gradient == "zero",
              "method.outside_gradient: {} is for grid seq; what lies beyond the levels of the others has no gradient",
              outside_gradient);
  CRUMB_CHECK(start() == nullptr || is_there(*start()), "method.init: {} does not exist; it is none of {} either",
              start()->string(), fmt::join(init_names(), ", "));
}

}  // namespace crumb::qat
