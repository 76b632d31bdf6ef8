#include "qat/fake_quantize.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/common/error.h"
#include "kernels/torch/seq.h"

namespace crumb::qat {
namespace {

using quant::GroupScale;
using quant::QuantFormat;
using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The groups of a matrix one by one, in parallel: function(group, scale).
template <class Function>
void for_each_group(const Tensor& scale, const Tensor& zeros, int64_t group_cols, const Function& function) {
  const float* scales = scale.const_data_ptr<float>();
  const bool has_minima = zeros.defined() && zeros.scalar_type() == torch::kFloat;
  const float* minima = has_minima ? zeros.const_data_ptr<float>() : nullptr;
  const int32_t* zero_points = zeros.defined() && !has_minima ? zeros.const_data_ptr<int32_t>() : nullptr;
  at::parallel_for(0, scale.numel(), std::max<int64_t>(1, 16384 / group_cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      GroupScale group{scales[i]};
      if (minima != nullptr) group.minimum = minima[i];
      if (zero_points != nullptr) group.zero_point = zero_points[i];
      function(i, group);
    }
  });
}

/// What does not train; in a struct, because the zeros may be undefined, which a function's tensors may not.
struct Fixed {
  QuantFormat format;
  Tensor zeros;
};

struct FakeQuantize : torch::autograd::Function<FakeQuantize> {
  static Tensor forward(AutogradContext* context, const Tensor& weight, const Tensor& log_scale, const Fixed& fixed) {
    const auto& [format, zeros] = fixed;
    const Tensor scale = kernels::round_scale(log_scale.exp()).contiguous();
    const Tensor w = weight.contiguous(), y = torch::empty_like(w);
    const int64_t n = w.size(1) / scale.size(1);
    const std::vector<float> levels = format.levels();
    const float* from = w.const_data_ptr<float>();
    float* to = y.data_ptr<float>();
    for_each_group(scale, zeros, n, [&, &format = fixed.format](int64_t group, const GroupScale& of_group) {
      std::vector<uint8_t> codes(static_cast<size_t>(n));
      format.grid->nearest_codes(from + group * n, n, format, of_group, codes.data());
      for (int64_t i = 0; i < n; ++i) to[group * n + i] = of_group.value(levels[codes[static_cast<size_t>(i)]]);
    });
    context->save_for_backward({w, y, scale});
    if (zeros.defined()) context->saved_data["zeros"] = zeros;
    context->saved_data["reach"] =
        std::vector<double>{levels.front() - (levels[1] - levels[0]) / 2.0,
                            levels.back() + (levels.back() - levels[levels.size() - 2]) / 2.0};
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &w = saved[0], &y = saved[1], &scale = saved[2];
    const auto saved_zeros = context->saved_data.find("zeros");
    const Tensor zeros = saved_zeros == context->saved_data.end() ? Tensor() : saved_zeros->second.toTensor();
    const std::vector<double> reach = context->saved_data["reach"].toDoubleVector();
    const Tensor grad = grads[0].contiguous(), by_weight = torch::empty_like(w), by_scale = torch::empty_like(scale);
    const int64_t n = w.size(1) / scale.size(1);
    const float *weights = w.const_data_ptr<float>(), *values = y.const_data_ptr<float>(),
                *g = grad.const_data_ptr<float>();
    float *out = by_weight.data_ptr<float>(), *sums = by_scale.data_ptr<float>();
    for_each_group(scale, zeros, n, [&](int64_t group, const GroupScale& of_group) {
      const float low = of_group.value(static_cast<float>(reach[0])),
                  high = of_group.value(static_cast<float>(reach[1]));
      double sum = 0;
      for (int64_t i = group * n; i < (group + 1) * n; ++i) {
        const bool is_inside = weights[i] >= low && weights[i] <= high;
        out[i] = is_inside ? g[i] : 0.0f;
        sum += static_cast<double>(g[i]) * (is_inside ? values[i] - weights[i] : values[i] - of_group.minimum);
      }
      sums[group] = static_cast<float>(sum);
    });
    return {by_weight, by_scale, Tensor()};
  }
};

}  // namespace

Tensor fake_quantize(const Tensor& weight, const Tensor& log_scale, const Tensor& zeros, const QuantFormat& format) {
  CRUMB_ASSERT(weight.device().is_cpu() && format.symmetric != zeros.defined());
  if (format.grid == quant::Grid::seq)
    return kernels::seq_fake_quantize(weight, log_scale, format.group_size, kernels::OutsideGradient::zero);
  return FakeQuantize::apply(weight, log_scale, Fixed{format, zeros});
}

Tensor zeros_of(const quant::QuantizedTensor& codes) {
  if (codes.format.has_zero_points()) return torch::tensor(codes.zero_points, torch::kInt).view({codes.rows, -1});
  return codes.format.has_minima ? torch::tensor(codes.minima).view({codes.rows, -1}) : Tensor();
}

}  // namespace crumb::qat
