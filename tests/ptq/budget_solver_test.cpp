#include "ptq/budget_solver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/common/rng.h"

namespace crumb::ptq {
namespace {

using Items = std::vector<std::vector<BudgetChoice>>;

/// The least loss of all selections that fit; infinity if none does.
double by_trying_all(const Items& items, int64_t budget, size_t from = 0) {
  if (from == items.size()) return 0;
  double best = std::numeric_limits<double>::infinity();
  for (const BudgetChoice& choice : items[from]) {
    if (choice.bytes <= budget)
      best = std::min(best, choice.loss + by_trying_all(items, budget - choice.bytes, from + 1));
  }
  return best;
}

/// Losses that mostly fall with bytes; `levels` > 0: of few values, so that many are equal.
Items random_items(uint64_t seed, int64_t levels) {
  const Rng rng(seed);
  uint64_t i = 0;
  Items items(2 + static_cast<size_t>(rng.uniform(i++) * 5));
  for (auto& item : items) {
    item.resize(1 + static_cast<size_t>(rng.uniform(i++) * 4));
    for (auto& choice : item) {
      choice.bytes = 1 + static_cast<int64_t>(rng.uniform(i++) * 12);
      choice.loss = 20 * rng.uniform(i++) / static_cast<double>(choice.bytes);
      if (levels > 0) choice.loss = static_cast<double>(static_cast<int64_t>(choice.loss) % levels);
    }
  }
  return items;
}

TEST(BudgetSolver, TheOptimumLiesBetweenTheBoundAndTheSolutionWhichIsNearlyAlwaysIt) {
  int solved = 0, optimal = 0;
  double worst = 0;
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    const Items items = random_items(seed, seed % 2 == 0 ? 0 : 4);
    const int64_t budget = least_bytes(items) + static_cast<int64_t>(seed % 17) - 1;
    const double best = by_trying_all(items, budget);
    const auto solution = solve_budget(items, budget);
    ASSERT_EQ(solution.has_value(), best < std::numeric_limits<double>::infinity()) << seed;
    if (!solution) continue;
    ++solved;
    BudgetSolution sums;
    for (size_t i = 0; i < items.size(); ++i) {
      sums.bytes += items[i][solution->choices[i]].bytes;
      sums.loss += items[i][solution->choices[i]].loss;
    }
    EXPECT_EQ(solution->bytes, sums.bytes);
    EXPECT_NEAR(solution->loss, sums.loss, 1e-12);
    EXPECT_LE(solution->bytes, budget);
    EXPECT_LE(solution->bound, best + 1e-9) << seed;
    EXPECT_GE(solution->loss, best - 1e-9) << seed;
    if (solution->loss <= best + 1e-9) ++optimal;
    worst = std::max(worst, solution->loss - best);
  }
  EXPECT_GT(solved, 900);
  EXPECT_GE(optimal, solved * 97 / 100) << "worst by " << worst;
}

TEST(BudgetSolver, NothingFitsBelowTheCheapestSelection) {
  const Items items = {{{10, 5}, {4, 9}}, {{7, 1}}};
  EXPECT_EQ(least_bytes(items), 11);
  EXPECT_EQ(most_bytes(items), 17);
  EXPECT_FALSE(solve_budget(items, 10).has_value());
  EXPECT_EQ(solve_budget(items, 11)->choices, (std::vector<size_t>{1, 0}));
}

TEST(BudgetSolver, WithRoomForAllTheLeastLossIsTakenAndTheBoundIsReached) {
  const Items items = {{{1, 9}, {2, 3}, {9, 3.5}, {5, 0.5}}, {{1, 2}, {8, 1}}};
  const auto solution = solve_budget(items, 1000);
  EXPECT_EQ(solution->choices, (std::vector<size_t>{3, 1})) << "more bytes for more loss are no use";
  EXPECT_DOUBLE_EQ(solution->loss, 1.5);
  EXPECT_DOUBLE_EQ(solution->bound, 1.5);
}

TEST(BudgetSolver, OfEqualGainsTheEarlierItemsCount) {
  const Items items(5, {{1, 2}, {2, 1}});
  EXPECT_EQ(solve_budget(items, 8)->choices, (std::vector<size_t>{1, 1, 1, 0, 0}));
  EXPECT_DOUBLE_EQ(solve_budget(items, 8)->bound, 7);
  const Items same = {{{3, 1}, {3, 1}}};
  EXPECT_EQ(solve_budget(same, 3)->choices, (std::vector<size_t>{0}));
}

TEST(BudgetSolver, AChoiceOffTheHullFillsWhatTheHullLeaves) {
  // The hull goes from 2 bytes to 10; the middle lies above it, but fits.
  const Items items = {{{2, 10}, {6, 8}, {10, 0}}};
  const auto solution = solve_budget(items, 7);
  EXPECT_EQ(solution->choices, (std::vector<size_t>{1}));
  EXPECT_DOUBLE_EQ(solution->bound, 10 - 10.0 / 8 * 5);
}

TEST(BudgetSolver, WhatASmallGainHoldsPaysForALargeOne) {
  // By gain a byte the small step comes first and blocks the large one.
  const Items items = {{{0, 3}, {1, 0}}, {{0, 10}, {10, 0}}};
  const auto solution = solve_budget(items, 10);
  EXPECT_EQ(solution->choices, (std::vector<size_t>{0, 1}));
}

TEST(BudgetSolver, IsFarFromTheOptimumByNoMoreThanOneStepForManyItems) {
  const Rng rng(3);
  Items items(500);
  double largest = 0;
  for (uint64_t i = 0; i < items.size(); ++i) {
    const auto weights = 1000 + static_cast<int64_t>(rng.uniform(2 * i) * 9000);
    const double loss = rng.uniform(2 * i + 1);
    for (const int64_t bits : {2, 3, 4, 8})
      items[i].push_back({weights * bits, loss * std::exp2(-2.0 * static_cast<double>(bits))});
    largest = std::max(largest, items[i][0].loss);
  }
  const auto solution = solve_budget(items, least_bytes(items) * 3 / 2);
  EXPECT_GE(solution->loss, solution->bound);
  EXPECT_LT(solution->loss - solution->bound, 1e-3 * solution->loss);
  EXPECT_LT(solution->loss - solution->bound, largest);
}

}  // namespace
}  // namespace crumb::ptq
