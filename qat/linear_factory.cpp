#include "qat/linear_factory.h"

#include "core/common/error.h"
#include "qat/quant_linear.h"

namespace crumb::qat {

model::LinearFactory linear_factory(const quant::MethodOptions& method) {
  if (method.name == "none") return model::make_float_linear;
  CRUMB_CHECK(method.name == "qat", "method.name: {} does not train; known: none, qat", method.name);
  return
      [make = quant_linear_maker(method), group_size = method.group_size, exclude = method.exclude](
          const std::string& name, torch::Tensor weight, torch::Tensor bias) -> std::shared_ptr<model::LinearModule> {
        if (quant::matches_any(name, exclude))
          return model::make_float_linear(name, std::move(weight), std::move(bias));
        quant::check_group_size(group_size, weight.size(1), name);
        return make(std::move(weight), std::move(bias));
      };
}

void check_group_size(const quant::MethodOptions& method, const arch::DecoderSpec& spec) {
  if (method.name == "none") return;
  for (const auto& desc : arch::tensor_table(spec)) {
    if (quant::is_quantized(desc, method)) quant::check_group_size(method.group_size, desc.cols(), desc.module_name());
  }
}

}  // namespace crumb::qat
