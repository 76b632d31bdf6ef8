#include "qat/movement.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace crumb::qat {
namespace {

constexpr int64_t kSample = 1 << 16;

/// Every k-th weight.
torch::Tensor sample(const torch::Tensor& weight) {
  const int64_t stride = (weight.numel() + kSample - 1) / kSample;
  return weight.detach().reshape({-1}).slice(0, 0, weight.numel(), stride).clone();
}

std::vector<uint8_t> packed_codes(const QuantLinear& linear) {
  const quant::QuantizedTensor tensor = linear.quantized();
  const int bits = tensor.format.bits;
  const int64_t row_bytes = quant::packed_row_bytes(tensor.cols, bits);
  std::vector<uint8_t> packed(static_cast<size_t>(tensor.rows * row_bytes));
  for (int64_t row = 0; row < tensor.rows; ++row)
    quant::pack_row(tensor.codes.data() + row * tensor.cols, tensor.cols, bits, packed.data() + row * row_bytes);
  return packed;
}

/// Codes of the linear that are no longer those of `packed`.
int64_t count_different(const QuantLinear& linear, const std::vector<uint8_t>& packed) {
  const quant::QuantizedTensor now = linear.quantized();
  const int64_t row_bytes = quant::packed_row_bytes(now.cols, now.format.bits);
  std::vector<uint8_t> then(static_cast<size_t>(now.cols));
  int64_t same = 0;
  for (int64_t row = 0; row < now.rows; ++row) {
    quant::unpack_row(packed.data() + row * row_bytes, now.cols, now.format.bits, then.data());
    same += std::inner_product(then.begin(), then.end(), now.codes.begin() + row * now.cols, int64_t{0}, std::plus<>(),
                               std::equal_to<>());
  }
  return now.rows * now.cols - same;
}

double sum_of_squares(const torch::Tensor& x) { return x.square().sum(torch::kFloat64).item<double>(); }

}  // namespace

Movement::Movement(const model::Decoder& decoder, const std::vector<train::TrainedParameter>& parameters) {
  for (const auto& [name, linear] : quant_linears(decoder))
    linears_.push_back({linear, packed_codes(*linear), linear->log_scales().clone()});
  for (const auto& p : parameters) {
    if (p.kind == train::ParameterKind::weight || p.kind == train::ParameterKind::table)
      matrices_.push_back({p.value, sample(p.value)});
  }
}

MovementReport Movement::report() const {
  const torch::NoGradGuard no_grad;
  double flipped = 0, codes = 0, moved = 0, size = 0, scale_moved = 0, scales = 0;
  for (const auto& start : linears_) {
    flipped += static_cast<double>(count_different(*start.linear, start.codes));
    codes += static_cast<double>(start.linear->weight.numel());
    scale_moved += sum_of_squares(start.linear->log_scales() - start.log_scales);
    scales += static_cast<double>(start.log_scales.numel());
  }
  for (const auto& start : matrices_) {
    moved += sum_of_squares(sample(start.weight) - start.sample);
    size += sum_of_squares(start.sample);
  }
  const auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0.0; };
  return {share(flipped, codes), std::sqrt(share(moved, size)), std::sqrt(share(scale_moved, scales))};
}

}  // namespace crumb::qat
