#include "eval/paired.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace crumb::eval {

void Moments::add(double value) {
  ++count_;
  const double before = value - mean_;
  mean_ += before / static_cast<double>(count_);
  squares_ += before * (value - mean_);
}

Estimate Moments::estimate() const {
  if (count_ < 2) return {mean_, std::nullopt};
  const auto n = static_cast<double>(count_);
  return {mean_, std::sqrt(squares_ / (n - 1) / n)};
}

double mcnemar_exact(int64_t lost, int64_t gained) {
  const int64_t n = lost + gained, few = std::min(lost, gained);
  if (few == n - few) return 1.0;
  // Terms of the binomial distribution by their logarithms: 2^-n alone is too small for n > 1074.
  const auto log_factorial = [](int64_t k) { return std::lgamma(static_cast<double>(k) + 1); };
  double tail = 0;
  for (int64_t k = 0; k <= few; ++k)
    tail +=
        std::exp(log_factorial(n) - log_factorial(k) - log_factorial(n - k) - static_cast<double>(n) * std::log(2.0));
  return std::min(1.0, 2 * tail);
}

std::optional<double> normal_test(const Estimate& difference) {
  if (!difference.standard_error) return std::nullopt;
  if (*difference.standard_error == 0) return difference.value == 0 ? 1.0 : 0.0;
  return std::erfc(std::abs(difference.value) / *difference.standard_error / std::sqrt(2.0));
}

std::vector<double> holm(const std::vector<double>& p) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](size_t i) { return p[i]; });
  std::vector<double> adjusted(p.size());
  double largest = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    largest = std::max(largest, std::min(1.0, static_cast<double>(p.size() - rank) * p[order[rank]]));
    adjusted[order[rank]] = largest;
  }
  return adjusted;
}

std::string_view verdict(double loss, double adjusted_p) {
  if (adjusted_p >= kSignificance) return "no significant change";
  return loss > 0 ? "worse" : "better";
}

}  // namespace crumb::eval
