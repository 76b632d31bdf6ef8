// What every linear that is trained on a grid offers, whatever the grid: the rest of the program knows this alone.
#pragma once

#include <torch/torch.h>

#include <cstdint>
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
  /// mask [rows, cols]: weights that are pruned, 0, become 0 and stay it; format().has_mask is true then. Not for grids
  /// without a level 0.
  virtual void set_mask(const std::vector<uint8_t>& mask);

  /// Scales at an end of their range: quant::count_clamped.
  int64_t clamped_scales() const;
};

/// The quantized linears of a decoder by module name, in its order.
std::vector<std::pair<std::string, std::shared_ptr<QuantLinear>>> quant_linears(const model::Decoder& decoder);

/// ln of the first scales of weight [rows, cols], [rows, groups]. UserError if group_size does not divide cols.
torch::Tensor first_log_scales(const torch::Tensor& weight, const quant::QuantFormat& format, quant::ScaleInit init);

/// Makes a linear of one job in `format`; weight [rows, cols] and bias (or undefined) are first values.
using QuantLinearMaker = std::function<std::shared_ptr<QuantLinear>(const quant::QuantFormat& format,
                                                                    torch::Tensor weight, torch::Tensor bias)>;
/// UserError naming `device`, which is none of the CPU, for a grid that is trained on the CPU only.
void check_device(const QatMethod& method, const std::string& device);
/// UserError: QatMethod::check().
QuantLinearMaker quant_linear_maker(const QatMethod& method);

}  // namespace crumb::qat
