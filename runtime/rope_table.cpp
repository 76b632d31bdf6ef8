#include "runtime/rope_table.h"

#include <algorithm>
#include <cmath>

namespace crumb::runtime {

RopeTable::RopeTable(const arch::RopeSpec& spec) : half_(spec.dim / 2) {
  for (int64_t i = 0; i < half_; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(spec.dim);
    frequencies_.push_back(static_cast<float>(std::pow(spec.base, -exponent) / spec.divisors[static_cast<size_t>(i)]));
  }
}

void RopeTable::grow(int64_t count) {
  auto position = static_cast<int64_t>(cos_.size()) / half_;
  if (position >= count) return;
  count = std::max(count, 2 * position);
  for (; position < count; ++position) {
    for (const float frequency : frequencies_) {
      // The angle is a product of floats, as models are trained with; at long contexts the difference would show.
      const double angle = static_cast<float>(position) * frequency;
      cos_.push_back(static_cast<float>(std::cos(angle)));
      sin_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

}  // namespace crumb::runtime
