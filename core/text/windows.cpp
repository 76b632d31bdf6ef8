#include "core/text/windows.h"

#include <algorithm>

namespace crumb::text {

int64_t count_windows(int64_t tokens, int64_t length, int64_t stride) {
  return tokens < length + 1 ? 0 : (tokens - 1 - length) / stride + 1;
}

std::vector<int64_t> spread_evenly(int64_t total, int64_t wanted, Spread spread) {
  const int64_t n = std::min(wanted, total), last = total - 1;
  const double step = n > 1 ? static_cast<double>(last) / static_cast<double>(n - 1) : 0.0;
  const auto pick = [&](int64_t i) {
    if (spread == Spread::parts) return i * total / n;
    return i > 0 && i == n - 1 ? last : static_cast<int64_t>(static_cast<double>(i) * step);  // as numpy rounds
  };
  std::vector<int64_t> picks;
  for (int64_t i = 0; i < n; ++i) {
    if (picks.empty() || pick(i) != picks.back()) picks.push_back(pick(i));
  }
  return picks;
}

std::vector<Window> plan_windows(int64_t tokens, int64_t context, int64_t stride, int64_t max_windows) {
  const int64_t count = count_windows(tokens, context, stride);
  std::vector<Window> windows;
  for (const int64_t i : spread_evenly(count, max_windows > 0 ? max_windows : count, Spread::ends))
    windows.push_back({i * stride, i == 0 ? 0 : context - stride});
  return windows;
}

}  // namespace crumb::text
