#include "qat/movement.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace crumb::qat {
namespace {

constexpr int64_t kSample = 1 << 16;

/// Every k-th weight.
torch::Tensor sample(const torch::Tensor& weight) {
  const int64_t stride = (weight.numel() + kSample - 1) / kSample;
  return weight.detach().reshape({-1}).slice(0, 0, weight.numel(), stride).clone();
}

std::vector<uint8_t> packed_codes(const SeqLinearImpl& linear) {
  const quant::QuantizedTensor tensor = linear.quantized();
  const int64_t row_bytes = quant::packed_row_bytes(tensor.cols, 2);
  std::vector<uint8_t> packed(static_cast<size_t>(tensor.rows * row_bytes));
  for (int64_t row = 0; row < tensor.rows; ++row)
    quant::pack_row(tensor.codes.data() + row * tensor.cols, tensor.cols, 2, packed.data() + row * row_bytes);
  return packed;
}

/// 2-bit fields in which two packed rows differ; padding bits are zero in both.
int64_t count_different(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  int64_t count = 0;
  for (size_t i = 0; i < a.size(); i += 8) {
    uint64_t x = 0, y = 0;
    const size_t bytes = std::min<size_t>(8, a.size() - i);
    std::memcpy(&x, a.data() + i, bytes);
    std::memcpy(&y, b.data() + i, bytes);
    const uint64_t different = x ^ y;
    count += std::popcount((different | different >> 1) & 0x5555555555555555);
  }
  return count;
}

double sum_of_squares(const torch::Tensor& x) { return x.square().sum(torch::kFloat64).item<double>(); }

}  // namespace

Movement::Movement(const model::Decoder& decoder, const std::vector<train::TrainedParameter>& parameters) {
  for (const auto& [name, linear] : decoder.linears()) {
    if (auto seq = std::dynamic_pointer_cast<SeqLinearImpl>(linear))
      linears_.push_back({seq, packed_codes(*seq), seq->log_scale.detach().clone()});
  }
  for (const auto& p : parameters) {
    if (p.kind == train::ParameterKind::weight) matrices_.push_back({p.value, sample(p.value)});
  }
}

MovementReport Movement::report() const {
  const torch::NoGradGuard no_grad;
  double flipped = 0, codes = 0, moved = 0, size = 0, scale_moved = 0, scales = 0;
  for (const auto& start : linears_) {
    flipped += static_cast<double>(count_different(packed_codes(*start.linear), start.codes));
    codes += static_cast<double>(start.linear->weight.numel());
    scale_moved += sum_of_squares(start.linear->log_scale - start.log_scale);
    scales += static_cast<double>(start.log_scale.numel());
  }
  for (const auto& start : matrices_) {
    moved += sum_of_squares(sample(start.weight) - start.sample);
    size += sum_of_squares(start.sample);
  }
  const auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0.0; };
  return {share(flipped, codes), std::sqrt(share(moved, size)), std::sqrt(share(scale_moved, scales))};
}

}  // namespace crumb::qat
