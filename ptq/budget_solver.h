// One choice for each item so that all together cost no more bytes than there are and lose as little as possible: the
// multiple-choice knapsack problem. No Torch here.
//
// Its linear relaxation is solved exactly (Sinha and Zoltners, Operations Research 27, 1979): of each item only choices
// on the lower convex hull of loss over bytes matter, and steps along the hulls are taken by falling gain a byte until
// one does not fit; a fraction of that step fills the budget and bounds what any solution can lose. What it leaves free
// is given to single choices and pairs of them, as long as one gains.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace crumb::ptq {

struct BudgetChoice {
  int64_t bytes = 0;
  double loss = 0;  // finite
};

struct BudgetSolution {
  std::vector<size_t> choices;  // of each item
  int64_t bytes = 0;
  double loss = 0;
  double bound = 0;  // no selection that fits loses less
};

/// Bytes of the cheapest and of the dearest selection.
int64_t least_bytes(const std::vector<std::vector<BudgetChoice>>& items);
int64_t most_bytes(const std::vector<std::vector<BudgetChoice>>& items);

/// Items have one choice at least. Nothing if no selection fits. The same result for the same numbers: of equal gains
/// the earlier item's counts, of choices equal in both numbers the first.
std::optional<BudgetSolution> solve_budget(const std::vector<std::vector<BudgetChoice>>& items, int64_t budget);

}  // namespace crumb::ptq
