#include "core/arch/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace crumb::arch {
namespace {

double wavelength(const RopeSpec& rope, size_t pair) {
  return 2.0 * std::numbers::pi * std::pow(rope.base, 2.0 * static_cast<double>(pair) / static_cast<double>(rope.dim));
}

/// original_context_length from one blended pair, or from the gap between the kept and the divided pairs.
double find_original_length(const RopeSpec& rope, const Llama3Scaling& scaling) {
  double last_kept = 0.0;
  for (size_t i = 0; i < rope.divisors.size(); ++i) {
    const double divisor = rope.divisors[i];
    if (divisor == 1.0) {
      last_kept = wavelength(rope, i);
    } else if (divisor < scaling.factor * (1 - 1e-6)) {
      const double smooth = (1.0 / divisor - 1.0 / scaling.factor) / (1.0 - 1.0 / scaling.factor);
      const double blend = scaling.low_freq_factor + smooth * (scaling.high_freq_factor - scaling.low_freq_factor);
      return std::round(wavelength(rope, i) * blend);
    }
  }
  return std::ceil(last_kept * scaling.high_freq_factor);
}

}  // namespace

double ntk_alpha_factor(double alpha, int64_t dim) {
  return std::pow(alpha, static_cast<double>(dim) / static_cast<double>(dim - 2));
}

std::vector<double> no_divisors(int64_t dim) { return std::vector<double>(static_cast<size_t>(dim / 2), 1.0); }

std::vector<double> llama3_divisors(const Llama3Scaling& scaling, int64_t dim, double base) {
  RopeSpec rope{dim, base, no_divisors(dim)};
  const double low = scaling.low_freq_factor, high = scaling.high_freq_factor;
  for (size_t i = 0; i < rope.divisors.size(); ++i) {
    const double turns = scaling.original_context_length / wavelength(rope, i);
    const double smooth = std::clamp((turns - low) / (high - low), 0.0, 1.0);  // 1: kept, 0: divided
    rope.divisors[i] = 1.0 / ((1.0 - smooth) / scaling.factor + smooth);
  }
  return rope.divisors;
}

std::optional<double> uniform_divisor(const RopeSpec& rope) {
  for (const double divisor : rope.divisors) {
    if (divisor != rope.divisors.front()) return std::nullopt;
  }
  return rope.divisors.empty() ? 1.0 : rope.divisors.front();
}

std::optional<Llama3Scaling> find_llama3_scaling(const RopeSpec& rope) {
  if (rope.divisors.empty()) return std::nullopt;
  Llama3Scaling scaling;
  scaling.factor = *std::max_element(rope.divisors.begin(), rope.divisors.end());
  if (scaling.factor <= 1.0) return std::nullopt;
  scaling.original_context_length = find_original_length(rope, scaling);
  if (!(scaling.original_context_length >= 1.0 && scaling.original_context_length < 0x1p53)) return std::nullopt;
  const auto expected = llama3_divisors(scaling, rope.dim, rope.base);
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::abs(rope.divisors[i] / expected[i] - 1.0) > 1e-5) return std::nullopt;
  }
  return scaling;
}

}  // namespace crumb::arch
