// A grid that the program does not know: what a new one has to bring, and that nothing else has to change for it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/seq.h"
#include "quant/grid.h"
#include "quant/scale_search.h"

namespace crumb::testing {

/// {-4, -1, 0, 1, 4} * scale: five levels, unevenly spaced, not a power of two.
class ToyGrid final : public quant::GridDefinition {
 public:
  constexpr ToyGrid() : GridDefinition(kFacts) {}

  std::vector<float> levels(const quant::QuantFormat&) const override { return {-4, -1, 0, 1, 4}; }

  /// max|w| / 4, or the best of eight parts of it.
  quant::GroupScale find_scale(const float* w, int64_t n, const quant::QuantFormat&, quant::ScaleInit init,
                               const float* importance) const override {
    const float most = quant::max_abs(w, n) / 4;
    if (init == quant::ScaleInit::absmax) return {kernels::round_scale(most)};
    float best = most;
    double best_error = std::numeric_limits<double>::infinity();
    for (int part = 1; part <= 8; ++part) {
      const float scale = kernels::round_scale(most * static_cast<float>(part) / 8);
      double error = 0;
      for (int64_t i = 0; i < n; ++i)
        error += (importance == nullptr ? 1 : importance[i]) * std::pow(w[i] - kLevels[code(w[i], scale)] * scale, 2);
      if (error < best_error) best = scale;
      best_error = std::min(error, best_error);
    }
    return {best};
  }

  void nearest_codes(const float* w, int64_t n, const quant::QuantFormat&, const quant::GroupScale& group,
                     uint8_t* codes) const override {
    for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<uint8_t>(code(w[i], group.scale));
  }

 private:
  static size_t code(float w, float scale) {
    size_t code = 0;
    while (code + 1 < kLevels.size() && w > (kLevels[code] + kLevels[code + 1]) / 2 * scale) ++code;
    return code;
  }

  static constexpr std::array kLevels = {-4.0f, -1.0f, 0.0f, 1.0f, 4.0f};
  static constexpr std::array kInits = {quant::ScaleInit::absmax, quant::ScaleInit::mse};
  static constexpr quant::GridFacts kFacts = {.name = "toy",
                                              .values = "{-4, -1, 0, 1, 4} * scale",
                                              .least_bits = 3,
                                              .most_bits = 3,
                                              .may_be_asymmetric = false,
                                              .inits = kInits};
};

inline constexpr ToyGrid kToyGrid;

}  // namespace crumb::testing
