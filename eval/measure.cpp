#include "eval/measure.h"

#include <algorithm>
#include <cmath>

#include "core/common/error.h"
#include "eval/paired.h"

namespace crumb::eval {

Estimate exponential(const Estimate& x, double shift) {
  const double value = std::exp(x.value);
  return {value - shift, x.standard_error ? std::optional(value * *x.standard_error) : std::nullopt};
}

const Measure* Scores::find(std::string_view name) const {
  const auto found = std::ranges::find(measures, name, &Measure::name);
  return found == measures.end() ? nullptr : &*found;
}

const Estimate& Scores::at(std::string_view name) const {
  const Measure* measure = find(name);
  CRUMB_ASSERT(measure != nullptr);
  return measure->estimate;
}

std::optional<std::string_view> verdict_of(const Measure& change) {
  const double loss = change.estimate.value;
  if (change.interval) return verdict(loss, change.interval->low > 0 || change.interval->high < 0 ? 0 : 1);
  const auto p = normal_test(change.estimate);
  return p ? std::optional(verdict(loss, *p)) : std::nullopt;
}

}  // namespace crumb::eval
