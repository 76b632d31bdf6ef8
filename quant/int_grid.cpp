// Integers of 2 to 8 bits: level = code; the zero point of a symmetric format is 2^(bits-1).
#include <algorithm>
#include <array>
#include <cmath>

#include "core/common/error.h"
#include "kernels/seq.h"
#include "kernels/vector8.h"
#include "quant/grid.h"

namespace crumb::quant {
namespace {

using kernels::round_scale;
using kernels::Vec8;

/// round_half_even(w / scale) + zero_point, clamped to the grid; exact for quotients below 2^22, beyond them the clamp
/// decides. V: float or a vector of them; `same` gives one number in V.
template <class V, class Same>
inline V int_codes(V w, float scale, float zero_point, float top, const Same& same) {
  constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer
  const V limit = same(0x1p20f);
  V x = w / scale;
  x = x > limit ? limit : x;
  x = x < -limit ? -limit : x;
  V code = ((x + kMagic) - kMagic) + zero_point;
  code = code > top ? same(top) : code;
  return code < 0.0f ? same(0) : code;
}
Vec8 int_codes(Vec8 w, float scale, float zero_point, float top) {
  return int_codes(w, scale, zero_point, top, [](float x) { return kernels::broadcast(x); });
}

double int_error(const float* w, int64_t n, int bits, const GroupScale& scale, const float* importance) {
  const float top = static_cast<float>((1 << bits) - 1), zero_point = static_cast<float>(scale.zero_point);
  Vec8 sum = kernels::broadcast(0);
  kernels::for_each8(n, [&](int64_t i, int64_t count) {
    const Vec8 x = kernels::load(w + i, count, 0);
    const Vec8 error = x - (int_codes(x, scale.scale, zero_point, top) - zero_point) * scale.scale;
    sum += importance == nullptr ? error * error : error * error * kernels::load(importance + i, count, 0);
  });
  return kernels::sum(sum);
}

GroupScale scale_of_range(float low, float high, int bits, bool symmetric) {
  const int half = 1 << (bits - 1), top = 2 * half - 1;
  if (symmetric) return {round_scale(std::max(-low, high) / static_cast<float>(half - 1)), half};
  const float scale = round_scale((high - low) / static_cast<float>(top));
  return {scale, static_cast<int32_t>(std::clamp(std::nearbyint(-low / scale), 0.0f, static_cast<float>(top)))};
}

GroupScale best_int_scale(const float* w, int64_t n, float low, float high, int bits, bool symmetric,
                          const float* importance) {
  constexpr int kRanges = 80;
  constexpr float kLeast = 0.2f;
  GroupScale best{};
  double best_error = 0;
  for (int i = 0; i < kRanges; ++i) {
    const float share = 1.0f - (1.0f - kLeast) * static_cast<float>(i) / (kRanges - 1);
    const GroupScale candidate = scale_of_range(low * share, high * share, bits, symmetric);
    if (i > 0 && candidate.scale == best.scale && candidate.zero_point == best.zero_point) continue;
    const double error = int_error(w, n, bits, candidate, importance);
    if (i == 0 || error < best_error) {
      best = candidate;
      best_error = error;
    }
  }
  return best;
}

/// Where the codes of a group are 0.
float zero_of(const QuantFormat& format, const GroupScale& group) {
  return static_cast<float>(format.symmetric ? 1 << (format.bits - 1) : group.zero_point);
}

constexpr std::array kInits = {ScaleInit::absmax, ScaleInit::mse};
constexpr GridFacts kFacts = {.name = "int",
                              .values = "integers * scale",
                              .least_bits = 2,
                              .most_bits = 8,
                              .may_be_asymmetric = true,
                              .inits = kInits};

class IntGrid final : public GridDefinition {
 public:
  constexpr IntGrid() : GridDefinition(kFacts) {}

  std::vector<float> levels(const QuantFormat& format) const override {
    const int zero = format.symmetric ? 1 << (format.bits - 1) : 0;
    std::vector<float> out;
    for (int code = 0; code < 1 << format.bits; ++code) out.push_back(static_cast<float>(code - zero));
    return out;
  }

  /// Symmetric: codes 0..2^bits-1 around 2^(bits-1), absmax: scale = max|w| / (2^(bits-1) - 1). Asymmetric:
  /// [min(w, 0), max(w, 0)] on the whole range. mse: the best of 80 shrunk ranges down to 20 %.
  GroupScale find_scale(const float* w, int64_t n, const QuantFormat& format, ScaleInit init,
                        const float* importance) const override {
    float low = 0, high = 0;
    for (int64_t i = 0; i < n; ++i) {
      low = std::min(low, w[i]);
      high = std::max(high, w[i]);
    }
    CRUMB_ASSERT(init == ScaleInit::absmax || init == ScaleInit::mse);
    return init == ScaleInit::absmax ? scale_of_range(low, high, format.bits, format.symmetric)
                                     : best_int_scale(w, n, low, high, format.bits, format.symmetric, importance);
  }

  void nearest_codes(const float* w, int64_t n, const QuantFormat& format, const GroupScale& group,
                     uint8_t* codes) const override {
    const float top = static_cast<float>((1 << format.bits) - 1), zero = zero_of(format, group);
    kernels::for_each8(n, [&](int64_t i, int64_t count) {
      const Vec8 code = int_codes(kernels::load(w + i, count, 0), group.scale, zero, top);
      for (int64_t lane = 0; lane < count; ++lane) codes[i + lane] = static_cast<uint8_t>(code[lane]);
    });
  }

  void nearest_codes_of_column(const float* w, int64_t n, const QuantFormat& format, const GroupScale* groups,
                               uint8_t* codes) const override {
    const float top = static_cast<float>((1 << format.bits) - 1);
    for (int64_t i = 0; i < n; ++i) {
      const float zero = zero_of(format, groups[i]);
      codes[i] = static_cast<uint8_t>(int_codes(w[i], groups[i].scale, zero, top, [](float x) { return x; }));
    }
  }
};

constinit const IntGrid kIntGrid;

}  // namespace

constinit const Grid Grid::intn(kIntGrid);

}  // namespace crumb::quant
