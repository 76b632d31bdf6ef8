// The SEQ grid: kernels/seq.h has its definition.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "kernels/seq.h"
#include "quant/grid.h"
#include "quant/scale_search.h"

namespace crumb::quant {
namespace {

using kernels::round_scale;

double mean_abs(const float* w, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::fabs(w[i]);
  return n == 0 ? 0 : sum / static_cast<double>(n);
}

// Representable scales are the floats whose low 18 mantissa bits are zero, so bits >> 18 numbers them in order.
constexpr int kScaleShift = 18;
constexpr int kCandidates = 8 * 32;

/// The number of the smallest representable scale that is not below x > 0.
int scale_number_above(float x) {
  return static_cast<int>((std::bit_cast<uint32_t>(x) + (1u << kScaleShift) - 1) >> kScaleShift);
}
float scale_of_number(int number) { return std::bit_cast<float>(static_cast<uint32_t>(number) << kScaleShift); }

/// How much importance the |w| of a row between neighbouring candidates have, and sum importance * |w|.
struct Bin {
  double count = 0, sum = 0;
};

constexpr double kInner = kernels::seq_level(2, 1.0f), kOuter = kernels::seq_level(3, 1.0f);

/// The squared error of a scale s, less the constant sum w^2, needs only count and sum of the |w| up to s: those have
/// the inner level, the others the outer one. Thresholds are the candidates themselves, so one pass that sorts the |w|
/// into bins by their top bits gives all candidates exactly, in O(n + candidates). A weight of importance h counts h
/// times.
float best_seq_scale(const float* w, int64_t n, const float* importance) {
  const float most = std::min(max_abs(w, n), kernels::kMaxScale);
  if (most <= kernels::kMinScale) return kernels::kMinScale;
  const int last = static_cast<int>(std::bit_cast<uint32_t>(most) >> kScaleShift);
  const int first = std::max(last - kCandidates + 1, scale_number_above(kernels::kMinScale));
  std::array<Bin, kCandidates + 1>
      bins{};  // bin b: weights up to candidate first + b that are above the one before; last: above all
  for (int64_t i = 0; i < n; ++i) {
    const float x = std::fabs(w[i]);
    Bin& bin = bins[static_cast<size_t>(std::clamp(scale_number_above(x), first, last + 1) - first)];
    const double times = importance == nullptr ? 1.0 : importance[i];
    bin.count += times;
    bin.sum += times * x;
  }
  Bin all;
  for (const auto& bin : bins) all = {all.count + bin.count, all.sum + bin.sum};
  Bin inner;
  double best_error = 0;
  float best = 0;
  for (int number = first; number <= last; ++number) {
    const Bin& bin = bins[static_cast<size_t>(number - first)];
    inner = {inner.count + bin.count, inner.sum + bin.sum};
    const double s = scale_of_number(number);
    const double error = s * s * (kInner * kInner * inner.count + kOuter * kOuter * (all.count - inner.count)) -
                         2 * kInner * s * (inner.sum + kOuter / kInner * (all.sum - inner.sum));
    if (best == 0 || error <= best_error) {
      best_error = error;
      best = scale_of_number(number);
    }
  }
  return best;
}

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

  /// absmax: max|w| / 2. absmean: 1.25 mean|w|. mse: of all representable scales (6 significant bits, 32 an octave) in
  /// the 8 octaves below max|w|, the one with the least sum (w - level)^2. A row of zeros gets the smallest scale.
  GroupScale find_scale(const float* w, int64_t n, const QuantFormat&, ScaleInit init,
                        const float* importance) const override {
    switch (init) {
      case ScaleInit::absmax:
        return {round_scale(0.5f * max_abs(w, n))};
      case ScaleInit::absmean:
        return {round_scale(static_cast<float>(1.25 * mean_abs(w, n)))};
      case ScaleInit::mse:
        return {best_seq_scale(w, n, importance)};
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
