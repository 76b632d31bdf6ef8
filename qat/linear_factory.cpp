#include "qat/linear_factory.h"

#include "qat/quant_linear.h"

namespace crumb::qat {

model::LinearFactory linear_factory(const QatMethod& method) {
  return
      [make = quant_linear_maker(method), linears = method.linears](
          const std::string& name, torch::Tensor weight, torch::Tensor bias) -> std::shared_ptr<model::LinearModule> {
        const auto format = linears.format_of(name);
        if (!format) return model::make_float_linear(name, std::move(weight), std::move(bias));
        quant::check_group_size(format->group_size, weight.size(1), name);
        return make(*format, std::move(weight), std::move(bias));
      };
}

}  // namespace crumb::qat
