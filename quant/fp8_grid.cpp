// FP8 E4M3 in its finite variant ("fn") of the OCP 8-bit floating point specification (arXiv:2209.05433): a sign, 4
// bits of exponent with bias 7, 3 of mantissa; no infinities, the largest 448, steps of 2^-9 below 2^-6. The codes
// number the 253 distinct finite values in ascending order, so that 126 is zero and 126 +- k the values of the bits k =
// 0x00 ... 0x7e.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "core/formats/dtype.h"
#include "kernels/seq.h"
#include "kernels/vector8.h"
#include "quant/grid.h"
#include "quant/scale_numbers.h"
#include "quant/scale_search.h"

namespace crumb::quant {
namespace {

using kernels::magnitude;
using kernels::round_scale;
using kernels::Vec8;
using Int8x = kernels::VecInt;

constexpr int kZeroCode = 126;
constexpr float kMost = 448, kLeastNormal = 0x1p-6f;
constexpr int kDroppedBits = 20;             // of a float's mantissa
constexpr int kBiases = (127 - 7) << 3;      // of both formats, where E4M3's exponent begins
constexpr float kStepsBelowNormal = 0x1p9f;  // to the unit

/// x >= 0 to the nearest value, ties to even as the hardware's conversion does; 448 for all that is larger, and for
/// NaN.
Vec8 round_magnitude(Vec8 x) {
  constexpr int kMask = (1 << kDroppedBits) - 1;
  x = x < kMost ? x : kernels::broadcast(kMost);
  const auto bits = __builtin_bit_cast(Int8x, x);
  const auto normal = __builtin_bit_cast(Vec8, (bits + (kMask >> 1) + ((bits >> kDroppedBits) & 1)) & ~kMask);
  constexpr float kMagic = 0x1p23f / kStepsBelowNormal;  // floats there are the steps apart
  const Vec8 below_normal = (x + kMagic) - kMagic;
  return x < kLeastNormal ? below_normal : normal;
}

/// Codes of quotients w / scale.
Int8x codes_of(Vec8 quotient) {
  const Vec8 value = round_magnitude(magnitude(quotient));
  const Int8x normal = (__builtin_bit_cast(Int8x, value) >> kDroppedBits) - kBiases;
  const Int8x below_normal = __builtin_convertvector(value * kStepsBelowNormal, Int8x);
  const Int8x bits = value < kLeastNormal ? below_normal : normal;
  return kZeroCode + (quotient < 0.0f ? -bits : bits);
}

/// sum importance * (w - value)^2 of a scale, and what of it comes from weights beyond the largest value.
struct Fp8Error {
  double all = 0, beyond = 0;
};
Fp8Error fp8_error(const float* w, int64_t n, float scale, const float* importance) {
  Vec8 all = kernels::broadcast(0), beyond = all;
  kernels::for_each8(n, [&](int64_t i, int64_t count) {
    const Vec8 x = magnitude(kernels::load(w + i, count, 0));
    const Vec8 error = x - round_magnitude(x / scale) * scale;
    const Vec8 square = importance == nullptr ? error * error : error * error * kernels::load(importance + i, count, 0);
    all += square;
    beyond += x > kMost * scale ? square : kernels::broadcast(0);
  });
  return {kernels::sum(all), kernels::sum(beyond)};
}

/// The best of all representable scales. Above the first that reaches max|w|, one octave is enough: the values of twice
/// a scale are among those of the scale, but for those beyond max|w|. Below it, weights beyond the largest value are
/// cut off by more and more, until that alone is worse than the best.
float best_fp8_scale(const float* w, int64_t n, const float* importance) {
  const float most = max_abs(w, n);
  if (most == 0) return kernels::kMinScale;
  const int reaching =
      std::clamp(scale_number_above(std::max(most / kMost, kernels::kMinScale)), kLeastScaleNumber, kMostScaleNumber);
  const int last = std::min(reaching + kScalesAnOctave - 1, kMostScaleNumber);
  double best_error = std::numeric_limits<double>::infinity();
  float best = scale_of_number(reaching);
  const auto try_scale = [&](int number) {
    const Fp8Error error = fp8_error(w, n, scale_of_number(number), importance);
    if (error.all < best_error) {
      best_error = error.all;
      best = scale_of_number(number);
    }
    return error;
  };
  for (int number = reaching; number <= last; ++number) try_scale(number);
  for (int number = reaching - 1; number >= kLeastScaleNumber; --number) {
    if (try_scale(number).beyond >= best_error) break;
  }
  return best;
}

constexpr std::array kInits = {ScaleInit::absmax, ScaleInit::mse};
constexpr GridFacts kFacts = {.name = "fp8",
                              .values = "E4M3 floats up to 448 * scale",
                              .least_bits = 8,
                              .most_bits = 8,
                              .may_be_asymmetric = false,
                              .inits = kInits};

class Fp8Grid final : public GridDefinition {
 public:
  constexpr Fp8Grid() : GridDefinition(kFacts) {}

  std::vector<float> levels(const QuantFormat&) const override {
    std::array<uint8_t, kZeroCode + 1> bits;
    std::iota(bits.begin(), bits.end(), uint8_t{0});
    std::vector<float> out(2 * kZeroCode + 1);
    formats::to_float(formats::DType::f8_e4m3, bits.data(), kZeroCode + 1, out.data() + kZeroCode);
    for (int k = 1; k <= kZeroCode; ++k)
      out[static_cast<size_t>(kZeroCode - k)] = -out[static_cast<size_t>(kZeroCode + k)];
    return out;
  }

  /// absmax: max|w| / 448. mse: best_fp8_scale. A row of zeros gets the smallest scale.
  GroupScale find_scale(const float* w, int64_t n, const QuantFormat&, ScaleInit init,
                        const float* importance) const override {
    return {init == ScaleInit::mse ? best_fp8_scale(w, n, importance) : round_scale(max_abs(w, n) / kMost)};
  }

  void nearest_codes(const float* w, int64_t n, const QuantFormat&, const GroupScale& group,
                     uint8_t* codes) const override {
    kernels::for_each8(n, [&](int64_t i, int64_t count) {
      const Int8x found = codes_of(kernels::load(w + i, count, 0) / group.scale);
      for (int64_t lane = 0; lane < count; ++lane) codes[i + lane] = static_cast<uint8_t>(found[lane]);
    });
  }

  void nearest_codes_of_column(const float* w, int64_t n, const QuantFormat&, const GroupScale* groups,
                               uint8_t* codes) const override {
    kernels::for_each8(n, [&](int64_t i, int64_t count) {
      Vec8 scale = kernels::broadcast(1);
      for (int64_t lane = 0; lane < count; ++lane) scale[lane] = groups[i + lane].scale;
      const Int8x found = codes_of(kernels::load(w + i, count, 0) / scale);
      for (int64_t lane = 0; lane < count; ++lane) codes[i + lane] = static_cast<uint8_t>(found[lane]);
    });
  }
};

constinit const Fp8Grid kFp8Grid;

}  // namespace

constinit const Grid Grid::fp8(kFp8Grid);

}  // namespace crumb::quant
