// What every linear that is trained on a grid offers, whatever the grid: the rest of the program knows this alone.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/decoder.h"
#include "qat/method.h"
#include "quant/quantized_tensor.h"

namespace crumb::qat {

/// Its forward pass multiplies with effective_weight(), which is quantized(). Parameters beside weight and bias are its
/// scales (train/parameters.h).
class QuantLinear : public model::LinearModule {
 public:
  virtual quant::QuantFormat format() const = 0;
  /// Rows [begin, end) as codes and rounded scales.
  virtual quant::QuantizedTensor quantized(int64_t begin, int64_t end) const = 0;
  quant::QuantizedTensor quantized() const { return quantized(0, weight.size(0)); }

  /// ln of the scales before they are rounded, [rows, groups] float32 without gradient.
  virtual torch::Tensor log_scales() const = 0;
  torch::Tensor scales() const { return log_scales().exp(); }
  /// [rows, groups] float32
  virtual void set_scales(const torch::Tensor& scales) = 0;

  /// Scales at an end of their range: quant::count_clamped.
  int64_t clamped_scales() const;
};

/// The quantized linears of a decoder by module name, in its order.
std::vector<std::pair<std::string, std::shared_ptr<QuantLinear>>> quant_linears(const model::Decoder& decoder);

/// Makes a linear of one job in `format`; weight [rows, cols] and bias (or undefined) are first values.
using QuantLinearMaker = std::function<std::shared_ptr<QuantLinear>(const quant::QuantFormat& format,
                                                                    torch::Tensor weight, torch::Tensor bias)>;
/// UserError: QatMethod::check().
QuantLinearMaker quant_linear_maker(const QatMethod& method);

}  // namespace crumb::qat
