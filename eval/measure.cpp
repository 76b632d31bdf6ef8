#include "eval/measure.h"

#include <algorithm>
#include <cmath>

#include "core/common/error.h"

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

}  // namespace crumb::eval
