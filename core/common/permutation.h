// Random orders that are functions of a seed.
#pragma once

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "core/common/rng.h"

namespace crumb {

/// A permutation of 0..n-1 by Fisher and Yates, from the numbers first + 1 to first + n - 1 of `rng` alone.
inline std::vector<int32_t> permutation(int64_t n, const Rng& rng, uint64_t first = 0) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = n - 1; i > 0; --i) {
    const uint64_t other = rng.below(first + static_cast<uint64_t>(i), static_cast<uint64_t>(i) + 1);
    std::swap(order[static_cast<size_t>(i)], order[other]);
  }
  return order;
}

}  // namespace crumb
