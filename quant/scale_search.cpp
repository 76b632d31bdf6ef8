#include "quant/scale_search.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "core/common/error.h"
#include "core/common/log.h"
#include "kernels/seq.h"
#include "kernels/vector8.h"

namespace crumb::quant {
namespace {

using kernels::round_scale;
using kernels::Vec8;

float max_abs(const float* w, int64_t n) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::fabs(w[i]));
  return most;
}

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

/// How many |w| of a row, and of what sum, lie between neighbouring candidates.
struct Bin {
  double count = 0, sum = 0;
};

/// The squared error of a scale s, less the constant sum w^2, needs only count and sum of the |w| up to s: those have
/// the level s/2, the others 3s/2. Thresholds are the candidates themselves, so one pass that sorts the |w| into bins
/// by their top bits gives all candidates exactly, in O(n + candidates).
float best_seq_scale(const float* w, int64_t n) {
  const float most = std::min(max_abs(w, n), kernels::kMaxScale);
  if (most <= kernels::kMinScale) return kernels::kMinScale;
  const int last = static_cast<int>(std::bit_cast<uint32_t>(most) >> kScaleShift);
  const int first = std::max(last - kCandidates + 1, scale_number_above(kernels::kMinScale));
  std::array<Bin, kCandidates + 1>
      bins{};  // bin b: weights up to candidate first + b that are above the one before; last: above all
  for (int64_t i = 0; i < n; ++i) {
    const float x = std::fabs(w[i]);
    Bin& bin = bins[static_cast<size_t>(std::clamp(scale_number_above(x), first, last + 1) - first)];
    bin.count += 1;
    bin.sum += x;
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
    const double error =
        s * s * (0.25 * inner.count + 2.25 * (all.count - inner.count)) - s * (inner.sum + 3.0 * (all.sum - inner.sum));
    if (best == 0 || error <= best_error) {
      best_error = error;
      best = scale_of_number(number);
    }
  }
  return best;
}

// --- integers -------------------------------------------------------------------------------------------------------

/// round_half_even(w / scale) + zero_point, clamped to the grid; exact for quotients below 2^22, beyond them the clamp
/// decides.
Vec8 int_codes(Vec8 w, float scale, float zero_point, float top) {
  constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer
  const Vec8 limit = kernels::broadcast(0x1p20f);
  Vec8 x = w / scale;
  x = x > limit ? limit : x;
  x = x < -limit ? -limit : x;
  Vec8 code = ((x + kMagic) - kMagic) + zero_point;
  code = code > top ? kernels::broadcast(top) : code;
  return code < 0.0f ? kernels::broadcast(0) : code;
}

double int_error(const float* w, int64_t n, int bits, const IntScale& scale) {
  const float top = static_cast<float>((1 << bits) - 1), zero_point = static_cast<float>(scale.zero_point);
  Vec8 sum = kernels::broadcast(0);
  kernels::for_each8(n, [&](int64_t i, int64_t count) {
    const Vec8 x = kernels::load(w + i, count, 0);
    const Vec8 error = x - (int_codes(x, scale.scale, zero_point, top) - zero_point) * scale.scale;
    sum += error * error;
  });
  return kernels::sum(sum);
}

IntScale scale_of_range(float low, float high, int bits, bool symmetric) {
  const int half = 1 << (bits - 1), top = 2 * half - 1;
  if (symmetric) return {round_scale(std::max(-low, high) / static_cast<float>(half - 1)), half};
  const float scale = round_scale((high - low) / static_cast<float>(top));
  return {scale, static_cast<int32_t>(std::clamp(std::nearbyint(-low / scale), 0.0f, static_cast<float>(top)))};
}

IntScale best_int_scale(const float* w, int64_t n, float low, float high, int bits, bool symmetric) {
  constexpr int kRanges = 80;
  constexpr float kLeast = 0.2f;
  IntScale best{};
  double best_error = 0;
  for (int i = 0; i < kRanges; ++i) {
    const float share = 1.0f - (1.0f - kLeast) * static_cast<float>(i) / (kRanges - 1);
    const IntScale candidate = scale_of_range(low * share, high * share, bits, symmetric);
    if (i > 0 && candidate.scale == best.scale && candidate.zero_point == best.zero_point) continue;
    const double error = int_error(w, n, bits, candidate);
    if (i == 0 || error < best_error) {
      best = candidate;
      best_error = error;
    }
  }
  return best;
}

void round_int_group(const float* w, int64_t n, int bits, const IntScale& scale, uint8_t* codes) {
  const float top = static_cast<float>((1 << bits) - 1);
  kernels::for_each8(n, [&](int64_t i, int64_t count) {
    const Vec8 code = int_codes(kernels::load(w + i, count, 0), scale.scale, static_cast<float>(scale.zero_point), top);
    for (int64_t lane = 0; lane < count; ++lane) codes[i + lane] = static_cast<uint8_t>(code[lane]);
  });
}

}  // namespace

ScaleInit scale_init_from_name(const std::string& name) {
  if (name == "absmax") return ScaleInit::absmax;
  if (name == "absmean") return ScaleInit::absmean;
  CRUMB_CHECK(name == "mse", "method.init: unknown \"{}\"; known: absmax, absmean, mse", name);
  return ScaleInit::mse;
}

float seq_scale(const float* w, int64_t n, ScaleInit init) {
  switch (init) {
    case ScaleInit::absmax:
      return round_scale(0.5f * max_abs(w, n));
    case ScaleInit::absmean:
      return round_scale(static_cast<float>(1.25 * mean_abs(w, n)));
    case ScaleInit::mse:
      return best_seq_scale(w, n);
  }
  return kernels::kMinScale;
}

IntScale int_scale(const float* w, int64_t n, int bits, bool symmetric, ScaleInit init) {
  CRUMB_CHECK(init != ScaleInit::absmean, "method.init: absmean is for grid seq; integer grids know absmax and mse");
  float low = 0, high = 0;
  for (int64_t i = 0; i < n; ++i) {
    low = std::min(low, w[i]);
    high = std::max(high, w[i]);
  }
  if (init == ScaleInit::absmax) return scale_of_range(low, high, bits, symmetric);
  return best_int_scale(w, n, low, high, bits, symmetric);
}

int64_t count_clamped(const float* w, const float* scales, int64_t rows, int64_t cols, int64_t group_cols) {
  int64_t count = 0;
  for (int64_t group = 0; group < rows * cols / group_cols; ++group) {
    const bool at_an_end = scales[group] <= kernels::kMinScale || scales[group] >= kernels::kMaxScale;
    count += at_an_end && max_abs(w + group * group_cols, group_cols) > 0 ? 1 : 0;
  }
  return count;
}

void warn_about_clamped_scales(const std::vector<ClampedScales>& linears) {
  constexpr size_t kMostNames = 8;
  std::vector<std::string> names;
  for (const auto& linear : linears) {
    if (linear.clamped > 0) names.push_back(fmt::format("{} ({} of {})", linear.module, linear.clamped, linear.scales));
  }
  if (names.empty()) return;
  const size_t more = names.size() - std::min(names.size(), kMostNames);
  names.resize(names.size() - more);
  log_warning("scales were clamped to the range 2^-17 to 2^14, and the weights they stand for are badly rounded: {}{}",
              fmt::join(names, ", "), more > 0 ? fmt::format(" and {} more", more) : "");
}

QuantizedTensor round_to_nearest(const float* w, int64_t rows, int64_t cols, const QuantFormat& format,
                                 ScaleInit init) {
  const int64_t group_cols = format.group_cols(cols), groups = rows * format.groups(cols);
  CRUMB_ASSERT(group_cols > 0 && cols % group_cols == 0);
  QuantizedTensor out{.format = format, .rows = rows, .cols = cols, .codes = {}, .scales = {}, .zero_points = {}};
  out.codes.resize(static_cast<size_t>(rows * cols));
  out.scales.resize(static_cast<size_t>(groups));
  for (int64_t group = 0; group < groups; ++group) {
    const float* values = w + group * group_cols;
    uint8_t* codes = out.codes.data() + group * group_cols;
    float& scale = out.scales[static_cast<size_t>(group)];
    if (format.grid == Grid::seq) {
      scale = seq_scale(values, group_cols, init);
      kernels::seq_forward(values, &scale, 1, group_cols, group_cols, nullptr, codes, serial_executor());
    } else {
      const IntScale found = int_scale(values, group_cols, format.bits, format.symmetric, init);
      scale = found.scale;
      if (!format.symmetric) out.zero_points.push_back(found.zero_point);
      round_int_group(values, group_cols, format.bits, found, codes);
    }
  }
  return out;
}

}  // namespace crumb::quant
