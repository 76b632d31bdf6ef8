#include "qat/lsq_linear.h"

#include <algorithm>

#include "core/common/error.h"
#include "kernels/torch/seq.h"
#include "qat/fake_quantize.h"
#include "quant/scale_search.h"

namespace crumb::qat {

LsqLinearImpl::LsqLinearImpl(torch::Tensor initial_weight, torch::Tensor initial_bias, const quant::QuantFormat& format,
                             quant::ScaleInit init)
    : format_(format) {
  CRUMB_ASSERT(format.symmetric);
  weight = register_parameter("weight", std::move(initial_weight));
  log_scale = register_parameter("log_scale", first_log_scales(weight, format, init));
  if (initial_bias.defined()) bias = register_parameter("bias", std::move(initial_bias));
}

torch::Tensor LsqLinearImpl::kept_weight() const { return mask_.defined() ? weight * mask_ : weight; }

torch::Tensor LsqLinearImpl::forward(const torch::Tensor& x) {
  const torch::Tensor values = fake_quantize(kept_weight(), log_scale, {}, format_);
  return torch::linear(x, values.to(x.scalar_type()), effective_bias(x.scalar_type()));
}

torch::Tensor LsqLinearImpl::effective_weight() {
  const torch::NoGradGuard no_grad;
  return fake_quantize(kept_weight(), log_scale, {}, format_);
}

void LsqLinearImpl::set_scales(const torch::Tensor& scales) {
  const torch::NoGradGuard no_grad;
  log_scale.copy_(scales.log());
}

void LsqLinearImpl::set_mask(const std::vector<uint8_t>& mask) {
  const torch::NoGradGuard no_grad;
  CRUMB_ASSERT(quant::has_zero(format_) && std::ssize(mask) == weight.numel());
  format_.has_mask = true;
  mask_ = torch::tensor(mask, torch::kFloat32).view(weight.sizes());
  weight.mul_(mask_);
}

quant::QuantizedTensor LsqLinearImpl::quantized(int64_t begin, int64_t end) const {
  const torch::NoGradGuard no_grad;
  const torch::Tensor w = kept_weight().slice(0, begin, end).contiguous();
  const torch::Tensor scale = kernels::round_scale(log_scale.slice(0, begin, end).exp()).contiguous();
  const auto* scales = scale.const_data_ptr<float>();
  quant::QuantizedTensor out{.format = format_,
                             .rows = end - begin,
                             .cols = w.size(1),
                             .codes = {},
                             .scales = {scales, scales + scale.numel()},
                             .zero_points = {}};
  quant::set_nearest_codes(w.const_data_ptr<float>(), out);
  if (!mask_.defined()) return out;
  const torch::Tensor mask = mask_.slice(0, begin, end).to(torch::kUInt8).contiguous();
  out.mask.assign(mask.const_data_ptr<uint8_t>(), mask.const_data_ptr<uint8_t>() + mask.numel());
  return out;
}

QuantLinearMaker lsq_linear_maker(const QatMethod& method) {
  return [init = method.scale_init()](const quant::QuantFormat& format, torch::Tensor weight, torch::Tensor bias) {
    return std::make_shared<LsqLinearImpl>(std::move(weight), std::move(bias), format, init);
  };
}

}  // namespace crumb::qat
