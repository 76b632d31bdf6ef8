// Windows of a stream of tokens: how many there are, which of them are picked, and which of their tokens count.
#pragma once

#include <cstdint>
#include <vector>

namespace crumb::text {

/// Windows of `length` tokens and one more to predict that begin at multiples of `stride` in a stream of `tokens`.
int64_t count_windows(int64_t tokens, int64_t length, int64_t stride);

/// How a few of many are picked evenly. There are two because what each picked must stay: `ends` is the rule of
/// published perplexities and of every table made with `crumb eval`, `parts` that of the validation in every log.jsonl,
/// of runs that go on, too.
enum class Spread {
  ends,  ///< From the first to the last: numpy.unique(numpy.linspace(0, total - 1, n).astype(int)).
  parts  ///< The first of each of n equal parts: numpy.arange(n) * total // n.
};

/// `wanted` of 0 .. total - 1, ascending, each once; all of them where there are no more.
std::vector<int64_t> spread_evenly(int64_t total, int64_t wanted, Spread spread);

/// Tokens [begin, begin + context) go in; tokens begin + first_scored + 1 .. begin + context are the ones predicted and
/// scored.
struct Window {
  int64_t begin = 0;
  int64_t first_scored = 0;
  bool operator==(const Window&) const = default;
};

/// All windows, or `max_windows` (> 0) of them, Spread::ends. With stride < context only the last `stride` positions of
/// a window are scored (all of the first window's), so that no token counts twice and each has a context of at least
/// context - stride.
std::vector<Window> plan_windows(int64_t tokens, int64_t context, int64_t stride, int64_t max_windows);

}  // namespace crumb::text
