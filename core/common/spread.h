// What repeated measurements say: the middle one, and how far they lie apart.
#pragma once

#include <algorithm>
#include <vector>

#include "core/common/error.h"

namespace crumb {

struct Spread {
  double median = 0, least = 0, most = 0;
};

/// Of one value at least. The median of an even number is the mean of the two in the middle.
inline Spread spread_of(std::vector<double> values) {
  CRUMB_ASSERT(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {median, values.front(), values.back()};
}

}  // namespace crumb
