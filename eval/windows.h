// Which stretches of a token stream are scored.
#pragma once

#include <cstdint>
#include <vector>

namespace crumb::eval {

/// Tokens [begin, begin + context) go in; tokens begin + first_scored + 1 .. begin + context are the ones predicted and
/// scored.
struct Window {
  int64_t begin = 0;
  int64_t first_scored = 0;
  bool operator==(const Window&) const = default;
};

/// Number of windows of `context` tokens and one more to predict that begin at multiples of `stride` in a stream of
/// `tokens`.
int64_t count_windows(int64_t tokens, int64_t context, int64_t stride);

/// All windows, or `max_windows` (> 0) of them spread evenly from the first to the last: the indices that
/// numpy.unique(numpy.linspace(0, count - 1, n).astype(int)) gives. With stride < context only the last `stride`
/// positions of a window are scored (all of the first window's), so that no token counts twice and each has a context
/// of at least context - stride.
std::vector<Window> plan_windows(int64_t tokens, int64_t context, int64_t stride, int64_t max_windows);

}  // namespace crumb::eval
