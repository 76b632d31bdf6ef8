#include "qat/linear_factory.h"

#include "core/common/error.h"
#include "kernels/torch/seq.h"
#include "qat/seq_linear.h"

namespace crumb::qat {

model::LinearFactory linear_factory(const quant::MethodOptions& method) {
  if (method.name == "none") return model::make_float_linear;
  CRUMB_CHECK(method.name == "qat", "method.name: {} does not train; known: none, qat", method.name);
  CRUMB_CHECK(method.grid == "seq", "method.grid: training knows seq only, got {}", method.grid);
  const SeqOptions options{.group_size = method.format().group_size,
                           .init = quant::scale_init_from_name(method.init),
                           .outside = kernels::outside_gradient_from_name(method.outside_gradient)};
  return [options, exclude = method.exclude](const std::string& name, torch::Tensor weight,
                                             torch::Tensor bias) -> std::shared_ptr<model::LinearModule> {
    if (quant::matches_any(name, exclude)) return model::make_float_linear(name, std::move(weight), std::move(bias));
    quant::check_group_size(options.group_size, weight.size(1), name);
    return std::make_shared<SeqLinearImpl>(std::move(weight), std::move(bias), options);
  };
}

void check_group_size(const quant::MethodOptions& method, const arch::DecoderSpec& spec) {
  if (method.name == "none") return;
  for (const auto& desc : arch::tensor_table(spec)) {
    if (quant::is_quantized(desc, method)) quant::check_group_size(method.group_size, desc.cols(), desc.module_name());
  }
}

}  // namespace crumb::qat
