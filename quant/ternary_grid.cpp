// The ternary grid: {-1, 0, 1} times a scale. BitNet b1.58 (arXiv:2402.17764) and TWN (arXiv:1605.04711) have it.
#include <array>

#include "kernels/seq.h"
#include "quant/grid.h"
#include "quant/scale_search.h"
#include "quant/two_magnitudes.h"

namespace crumb::quant {
namespace {

using kernels::round_scale;

/// Halfway to either level the weight stays 0.
uint8_t ternary_code(float w, float scale) {
  const float half = 0.5f * scale;
  return static_cast<uint8_t>(1 + static_cast<int>(w > half) - static_cast<int>(w < -half));
}

constexpr TwoMagnitudes kMagnitudes{.inner = 0, .outer = 1};
constexpr std::array kInits = {ScaleInit::absmax, ScaleInit::absmean, ScaleInit::mse};
constexpr GridFacts kFacts = {.name = "ternary",
                              .values = "{-1, 0, 1} * scale",
                              .least_bits = 2,
                              .most_bits = 2,
                              .may_be_asymmetric = false,
                              .inits = kInits};

class TernaryGrid final : public GridDefinition {
 public:
  constexpr TernaryGrid() : GridDefinition(kFacts) {}

  std::vector<float> levels(const QuantFormat&) const override { return {-1, 0, 1}; }

  /// absmax: max|w|. absmean: mean|w|, as BitNet b1.58. mse: least_squares_scale.
  GroupScale find_scale(const float* w, int64_t n, const QuantFormat&, ScaleInit init,
                        const float* importance) const override {
    switch (init) {
      case ScaleInit::absmax:
        return {round_scale(max_abs(w, n))};
      case ScaleInit::absmean:
        return {round_scale(static_cast<float>(mean_abs(w, n)))};
      case ScaleInit::mse:
        return {least_squares_scale(w, n, kMagnitudes, importance)};
    }
    return {kernels::kMinScale};
  }

  void nearest_codes(const float* w, int64_t n, const QuantFormat&, const GroupScale& group,
                     uint8_t* codes) const override {
    for (int64_t i = 0; i < n; ++i) codes[i] = ternary_code(w[i], group.scale);
  }

  void nearest_codes_of_column(const float* w, int64_t n, const QuantFormat&, const GroupScale* groups,
                               uint8_t* codes) const override {
    for (int64_t i = 0; i < n; ++i) codes[i] = ternary_code(w[i], groups[i].scale);
  }
};

constinit const TernaryGrid kTernaryGrid;

}  // namespace

constinit const Grid Grid::ternary(kTernaryGrid);

}  // namespace crumb::quant
