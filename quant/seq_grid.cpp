// The SEQ grid: kernels/seq.h has its definition.
#include <array>

#include "kernels/seq.h"
#include "quant/grid.h"
#include "quant/scale_search.h"
#include "quant/two_magnitudes.h"

namespace crumb::quant {
namespace {

using kernels::round_scale;

constexpr TwoMagnitudes kMagnitudes{.inner = kernels::seq_level(2, 1.0f), .outer = kernels::seq_level(3, 1.0f)};
constexpr std::array kInits = {ScaleInit::absmax, ScaleInit::absmean, ScaleInit::mse};
constexpr GridFacts kFacts = {.name = "seq",
                              .values = "{-1.5, -0.5, 0.5, 1.5} * scale",
                              .least_bits = 2,
                              .most_bits = 2,
                              .may_be_asymmetric = false,
                              .inits = kInits};

class SeqGrid final : public GridDefinition {
 public:
  constexpr SeqGrid() : GridDefinition(kFacts) {}

  std::vector<float> levels(const QuantFormat&) const override {
    std::vector<float> out;
    for (int code = 0; code < 4; ++code) out.push_back(kernels::seq_level(code, 1.0f));
    return out;
  }

  /// absmax: max|w| / 2. absmean: 1.25 mean|w|. mse: least_squares_scale. A row of zeros gets the smallest scale.
  GroupScale find_scale(const float* w, int64_t n, const QuantFormat&, ScaleInit init,
                        const float* importance) const override {
    switch (init) {
      case ScaleInit::absmax:
        return {round_scale(0.5f * max_abs(w, n))};
      case ScaleInit::absmean:
        return {round_scale(static_cast<float>(1.25 * mean_abs(w, n)))};
      case ScaleInit::mse:
        return {least_squares_scale(w, n, kMagnitudes, importance)};
    }
    return {kernels::kMinScale};
  }

  void nearest_codes(const float* w, int64_t n, const QuantFormat&, const GroupScale& group,
                     uint8_t* codes) const override {
    kernels::seq_forward(w, &group.scale, 1, n, n, nullptr, codes, serial_executor());
  }

  void nearest_codes_of_column(const float* w, int64_t n, const QuantFormat&, const GroupScale* groups,
                               uint8_t* codes) const override {
    for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<uint8_t>(kernels::seq_code(w[i], groups[i].scale));
  }
};

constinit const SeqGrid kSeqGrid;

}  // namespace

constinit const Grid Grid::seq(kSeqGrid);

}  // namespace crumb::quant
