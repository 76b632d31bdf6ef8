#include "eval/windows.h"

#include <algorithm>

namespace crumb::eval {
namespace {

// numpy.linspace(0, last, n) in double precision, truncated, without repetitions.
std::vector<int64_t> spread(int64_t last, int64_t n) {
  std::vector<int64_t> picks;
  const double step = n > 1 ? static_cast<double>(last) / static_cast<double>(n - 1) : 0.0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t pick = i > 0 && i == n - 1 ? last : static_cast<int64_t>(static_cast<double>(i) * step);
    if (picks.empty() || pick != picks.back()) picks.push_back(pick);
  }
  return picks;
}

}  // namespace

int64_t count_windows(int64_t tokens, int64_t context, int64_t stride) {
  return tokens < context + 1 ? 0 : (tokens - 1 - context) / stride + 1;
}

std::vector<Window> plan_windows(int64_t tokens, int64_t context, int64_t stride, int64_t max_windows) {
  const int64_t count = count_windows(tokens, context, stride);
  std::vector<Window> windows;
  for (const int64_t i : spread(count - 1, max_windows > 0 ? std::min(max_windows, count) : count)) {
    windows.push_back({i * stride, i == 0 ? 0 : context - stride});
  }
  return windows;
}

}  // namespace crumb::eval
