// A grid that the program does not know: what a new one has to bring, and that nothing else has to change for it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/seq.h"
#include "quant/grid.h"

namespace crumb::testing {

/// {-1, 0, 1} * scale, the scale that of TWN's (arXiv:1605.04711) estimate or max|w|: three levels, not a power of two.
class ToyTernary final : public quant::GridDefinition {
 public:
  constexpr ToyTernary() : GridDefinition(kFacts) {}

  std::vector<float> levels(const quant::QuantFormat&) const override { return {-1, 0, 1}; }

  quant::GroupScale find_scale(const float* w, int64_t n, const quant::QuantFormat&, quant::ScaleInit init,
                               const float* /*importance*/) const override {
    double sum = 0, kept = 0, most = 0;
    for (int64_t i = 0; i < n; ++i) most = std::max<double>(most, std::fabs(w[i]));
    if (init == quant::ScaleInit::absmax) return {kernels::round_scale(static_cast<float>(most))};
    double mean = 0;
    for (int64_t i = 0; i < n; ++i) mean += std::fabs(w[i]) / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) {
      if (std::fabs(w[i]) <= 0.7 * mean) continue;
      sum += std::fabs(w[i]);
      kept += 1;
    }
    return {kernels::round_scale(static_cast<float>(sum / std::max(1.0, kept)))};
  }

  void nearest_codes(const float* w, int64_t n, const quant::QuantFormat&, const quant::GroupScale& group,
                     uint8_t* codes) const override {
    for (int64_t i = 0; i < n; ++i)
      codes[i] = static_cast<uint8_t>((w[i] > -0.5f * group.scale) + (w[i] >= 0.5f * group.scale));
  }

 private:
  static constexpr std::array kInits = {quant::ScaleInit::absmax, quant::ScaleInit::mse};
  static constexpr quant::GridFacts kFacts = {.name = "toy_ternary",
                                              .values = "{-1, 0, 1} * scale",
                                              .least_bits = 2,
                                              .most_bits = 2,
                                              .may_be_asymmetric = false,
                                              .inits = kInits};
};

inline constexpr ToyTernary kToyTernary;

}  // namespace crumb::testing
