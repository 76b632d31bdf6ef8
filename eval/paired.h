// Statistics of two models on the same items: what each item says is compared with itself, so what makes items hard or
// easy cancels.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "eval/measure.h"

namespace crumb::eval {

/// Mean and spread of a stream of values (Welford, Technometrics 4, 1962), without keeping them.
class Moments {
 public:
  void add(double value);
  int64_t count() const { return count_; }
  double mean() const { return mean_; }
  /// standard_error: sqrt(variance / n), the variance with n - 1; of fewer than two values it is not known.
  Estimate estimate() const;

 private:
  int64_t count_ = 0;
  double mean_ = 0, squares_ = 0;
};

/// The exact test of McNemar (Psychometrika 12, 1947): the probability that, of lost + gained items on which two models
/// differ, a fair coin would divide them at least as unevenly. Two-sided; 1 where they differ on none.
double mcnemar_exact(int64_t lost, int64_t gained);

/// Two-sided p of a difference with a normal error; nothing without a standard error.
std::optional<double> normal_test(const Estimate& difference);

/// p-values adjusted for testing all of them (Holm, Scandinavian Journal of Statistics 6, 1979): a family of tests that
/// calls those below alpha significant is wrong anywhere with a probability of alpha at most.
std::vector<double> holm(const std::vector<double>& p);

/// What is called significant.
inline constexpr double kSignificance = 0.05;
/// One-sided bound of 95 % in standard errors: the 0.95 quantile of the normal distribution.
inline constexpr double kBoundErrors = 1.6448536269514722;

/// "worse", "better" or "no significant change"; `loss` > 0 where the model is worse.
std::string_view verdict(double loss, double adjusted_p);

}  // namespace crumb::eval
