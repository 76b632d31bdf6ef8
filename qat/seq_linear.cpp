#include "qat/seq_linear.h"

#include <algorithm>
#include <ostream>

#include "core/common/error.h"
#include "kernels/torch/seq.h"
#include "quant/linear_formats.h"

namespace crumb::qat {
namespace {

torch::Tensor as_master(const torch::Tensor& parameter) {
  return parameter.defined() ? parameter.detach().to(torch::kFloat32, /*non_blocking=*/false, /*copy=*/true)
                             : parameter;
}

template <class T>
std::vector<T> to_vector(const torch::Tensor& tensor) {
  const torch::Tensor x = tensor.to(torch::kCPU).contiguous();
  return {x.const_data_ptr<T>(), x.const_data_ptr<T>() + x.numel()};
}

/// The SEQ linear that takes the place of `layer`; null if that is no linear, or excluded.
std::shared_ptr<SeqLinearImpl> replacement(const std::shared_ptr<torch::nn::Module>& layer, const std::string& name,
                                           const SeqOptions& options, const std::vector<std::string>& exclude) {
  const auto linear = std::dynamic_pointer_cast<torch::nn::LinearImpl>(layer);
  if (linear == nullptr || quant::matches_any(name, exclude)) return nullptr;
  return std::make_shared<SeqLinearImpl>(torch::nn::Linear(linear), options);
}

}  // namespace

SeqLinearImpl::SeqLinearImpl(torch::Tensor initial_weight, torch::Tensor initial_bias, const SeqOptions& options)
    : options_(options) {
  CRUMB_CHECK(initial_weight.dim() == 2 && initial_weight.scalar_type() == torch::kFloat32,
              "SeqLinear: the weight must be a float32 matrix [rows, cols]");
  weight = register_parameter("weight", std::move(initial_weight));
  log_scale = register_parameter("log_scale", first_log_scales(weight, format(), options_.init));
  if (initial_bias.defined()) bias = register_parameter("bias", std::move(initial_bias));
}

SeqLinearImpl::SeqLinearImpl(const torch::nn::Linear& linear, const SeqOptions& options)
    : SeqLinearImpl(as_master(linear->weight), as_master(linear->bias), options) {}

torch::Tensor SeqLinearImpl::forward(const torch::Tensor& x) {
  const torch::Tensor levels =
      kernels::seq_fake_quantize(weight, log_scale, options_.group_size, options_.outside,
                                 x.scalar_type() == torch::kBFloat16 ? torch::kBFloat16 : torch::kFloat32);
  return torch::linear(x, levels.to(x.scalar_type()), effective_bias(x.scalar_type()));
}

torch::Tensor SeqLinearImpl::effective_weight() {
  const torch::NoGradGuard no_grad;
  return kernels::seq_forward(weight, log_scale.exp(), options_.group_size);
}

void SeqLinearImpl::pretty_print(std::ostream& stream) const {
  stream << "crumb::qat::SeqLinear(in_features=" << weight.size(1) << ", out_features=" << weight.size(0)
         << ", group_size=" << options_.group_size << ", bias=" << std::boolalpha << bias.defined() << ")";
}

void SeqLinearImpl::set_scales(const torch::Tensor& scales) {
  const torch::NoGradGuard no_grad;
  log_scale.copy_(scales.log());
}

quant::QuantFormat SeqLinearImpl::format() const {
  return {.grid = quant::Grid::seq, .bits = 2, .symmetric = true, .group_size = options_.group_size};
}

quant::QuantizedTensor SeqLinearImpl::quantized(int64_t begin, int64_t end) const {
  const torch::NoGradGuard no_grad;
  const torch::Tensor w = weight.slice(0, begin, end), scale = log_scale.slice(0, begin, end).exp();
  return {.format = format(),
          .rows = end - begin,
          .cols = weight.size(1),
          .codes = to_vector<uint8_t>(kernels::seq_codes(w, scale, options_.group_size)),
          .scales = to_vector<float>(kernels::round_scale(scale)),
          .zero_points = {}};
}

QuantLinearMaker seq_linear_maker(const QatMethod& method) {
  const SeqOptions options{.init = method.scale_init(),
                           .outside = kernels::outside_gradient_from_name(method.outside_gradient)};
  return [options](const quant::QuantFormat& format, torch::Tensor weight, torch::Tensor bias) {
    SeqOptions of_linear = options;
    of_linear.group_size = format.group_size;
    return std::make_shared<SeqLinearImpl>(std::move(weight), std::move(bias), of_linear);
  };
}

torch::nn::Sequential with_seq_linears(const torch::nn::Sequential& net, const SeqOptions& options,
                                       const std::vector<std::string>& exclude) {
  torch::nn::Sequential out;
  const auto names = net->named_children().keys();
  for (size_t i = 0; i < net->size(); ++i) {
    const auto seq = replacement(net->ptr(i), names[i], options, exclude);
    out->push_back(names[i], seq == nullptr ? *(net->begin() + static_cast<int64_t>(i)) : torch::nn::AnyModule(seq));
  }
  return out;
}

torch::nn::ModuleList with_seq_linears(const torch::nn::ModuleList& list, const SeqOptions& options,
                                       const std::vector<std::string>& exclude) {
  torch::nn::ModuleList out;
  for (size_t i = 0; i < list->size(); ++i) {
    const auto seq = replacement(list->ptr(i), std::to_string(i), options, exclude);
    out->push_back(seq == nullptr ? list->ptr(i) : seq);
  }
  return out;
}

}  // namespace crumb::qat
