#include "qat/rates.h"

#include <algorithm>
#include <cmath>

#include "qat/quant_linear.h"

namespace crumb::qat {
namespace {

constexpr double kScaleShare = 0.006;  // a step of the median row as a share of its scale
constexpr double kLogScaleRate = 1e-3;
constexpr double kCalibratedLogScaleRate = 5e-4;
constexpr double kCalibratedShare = 0.0006, kMostCalibratedShare = 0.002;
constexpr double kCalibratedTokens = 512;  // of a step, for the first of the two
constexpr double kRandomRate = 1e-3;       // without quantization, at 512 hidden units

double calibrated_share(int64_t batch_tokens) {
  const double noise = std::sqrt(static_cast<double>(batch_tokens) / kCalibratedTokens);
  return std::min(kCalibratedShare * noise, kMostCalibratedShare);
}

/// Scales of a quantized linear at this moment, one number a row.
torch::Tensor row_scales(const QuantLinear& linear) { return linear.scales().mean(1); }

}  // namespace

double median_scale(const model::Decoder& decoder) {
  std::vector<torch::Tensor> rows;
  for (const auto& [name, linear] : quant_linears(decoder)) rows.push_back(row_scales(*linear));
  return rows.empty() ? 0.0 : torch::cat(rows).median().item<double>();
}

void resolve_rates(train::OptimizerOptions& optimizer, const RateFacts& facts) {
  if (optimizer.scale_lr.is_auto()) optimizer.scale_lr = facts.is_calibrated ? kCalibratedLogScaleRate : kLogScaleRate;
  if (!optimizer.lr.is_auto()) return;
  const double plain = kRandomRate * std::sqrt(512.0 / static_cast<double>(facts.hidden_size));
  const double share = facts.is_calibrated ? calibrated_share(facts.batch_tokens) : kScaleShare;
  optimizer.lr = facts.median_scale > 0 ? share * facts.median_scale : facts.is_random ? plain : plain / 20;
}

void set_row_factors(std::vector<train::TrainedParameter>& parameters, const model::Decoder& decoder,
                     double median_scale) {
  for (const auto& [name, linear] : quant_linears(decoder)) {
    for (auto& p : parameters) {
      if (p.value.is_same(linear->weight)) p.row_factor = (row_scales(*linear) / median_scale).contiguous();
    }
  }
}

}  // namespace crumb::qat
