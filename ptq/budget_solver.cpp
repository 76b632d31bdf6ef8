#include "ptq/budget_solver.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/common/error.h"

namespace crumb::ptq {
namespace {

using Item = std::vector<BudgetChoice>;

/// From a choice on the hull to the next one.
struct Step {
  size_t item, to;
  int64_t bytes;
  double gain;
  double gain_a_byte() const { return gain / static_cast<double>(bytes); }
};

/// Indices of the lower convex hull of loss over bytes, from the cheapest choice to the one that loses least; each
/// costs more and loses less than the one before it, at a falling rate.
std::vector<size_t> hull_of(const Item& item) {
  std::vector<size_t> order(item.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) {
    return item[a].bytes != item[b].bytes ? item[a].bytes < item[b].bytes : item[a].loss < item[b].loss;
  });
  std::vector<size_t> hull;
  const auto slope = [&](size_t from, size_t to) {
    return (item[from].loss - item[to].loss) / static_cast<double>(item[to].bytes - item[from].bytes);
  };
  for (const size_t i : order) {
    if (!hull.empty() && item[i].loss >= item[hull.back()].loss) continue;  // costs as much or more for nothing
    while (hull.size() >= 2 && slope(hull.back(), i) >= slope(hull[hull.size() - 2], hull.back())) hull.pop_back();
    hull.push_back(i);
  }
  return hull;
}

class Solver {
 public:
  Solver(const std::vector<Item>& items, int64_t budget) : items_(items), left_(budget) {}

  std::optional<BudgetSolution> solve() {
    std::vector<Step> steps = begin();
    if (left_ < 0) return std::nullopt;
    std::ranges::stable_sort(steps, std::greater(), &Step::gain_a_byte);
    take(steps);
    while (improve_one() || improve_pair()) {
    }
    out_.loss = 0;
    for (size_t i = 0; i < items_.size(); ++i) {
      out_.bytes += chosen(i).bytes;
      out_.loss += chosen(i).loss;
    }
    out_.bound = std::min(out_.bound, out_.loss);  // they differ by rounding where every step fits
    return std::move(out_);
  }

 private:
  const BudgetChoice& chosen(size_t item) const { return items_[item][out_.choices[item]]; }
  void choose(size_t item, size_t choice) {
    left_ -= items_[item][choice].bytes - chosen(item).bytes;
    out_.choices[item] = choice;
  }

  /// Chooses the beginning of every hull.
  std::vector<Step> begin() {
    std::vector<Step> steps;
    for (size_t i = 0; i < items_.size(); ++i) {
      const auto hull = hull_of(items_[i]);
      out_.choices.push_back(hull[0]);
      left_ -= chosen(i).bytes;
      out_.bound += chosen(i).loss;
      for (size_t k = 1; k < hull.size(); ++k) {
        const BudgetChoice &from = items_[i][hull[k - 1]], &to = items_[i][hull[k]];
        steps.push_back({i, hull[k], to.bytes - from.bytes, from.loss - to.loss});
      }
    }
    return steps;
  }

  /// The relaxation: steps as they come while they fit, and a part of the first that does not.
  void take(const std::vector<Step>& steps) {
    for (const Step& step : steps) {
      if (step.bytes > left_) {
        out_.bound -= step.gain_a_byte() * static_cast<double>(left_);
        return;
      }
      choose(step.item, step.to);
      out_.bound -= step.gain;
    }
  }

  /// The change of one item that gains most.
  bool improve_one() {
    double most = 0;
    size_t item = 0, choice = 0;
    for (size_t i = 0; i < items_.size(); ++i) {
      for (size_t k = 0; k < items_[i].size(); ++k) {
        const double gain = chosen(i).loss - items_[i][k].loss;
        if (gain > most && items_[i][k].bytes - chosen(i).bytes <= left_) {
          most = gain;
          item = i;
          choice = k;
        }
      }
    }
    if (most > 0) choose(item, choice);
    return most > 0;
  }

  /// The changes of two items that together gain most: one pays for the other.
  bool improve_pair() {
    double most = 0;
    size_t payer = 0, paid = 0, less = 0, more = 0;
    for (size_t i = 0; i < items_.size(); ++i) {
      for (size_t a = 0; a < items_[i].size(); ++a) {
        const int64_t freed = chosen(i).bytes - items_[i][a].bytes;
        if (freed <= 0) continue;
        const double lost = items_[i][a].loss - chosen(i).loss;
        for (size_t j = 0; j < items_.size(); ++j) {
          if (j == i) continue;
          for (size_t b = 0; b < items_[j].size(); ++b) {
            const double gain = chosen(j).loss - items_[j][b].loss - lost;
            if (gain <= most || items_[j][b].bytes - chosen(j).bytes > left_ + freed) continue;
            most = gain;
            payer = i;
            less = a;
            paid = j;
            more = b;
          }
        }
      }
    }
    // Less than rounding could gain would go round in circles.
    if (most <= 1e-12 * (std::fabs(chosen(payer).loss) + std::fabs(chosen(paid).loss))) return false;
    choose(payer, less);
    choose(paid, more);
    return true;
  }

  const std::vector<Item>& items_;
  int64_t left_;
  BudgetSolution out_;
};

template <class Best>
int64_t sum_of(const std::vector<Item>& items, const Best& best) {
  int64_t sum = 0;
  for (const Item& item : items) sum += best(item)->bytes;
  return sum;
}

}  // namespace

int64_t least_bytes(const std::vector<Item>& items) {
  return sum_of(items, [](const Item& item) { return std::ranges::min_element(item, {}, &BudgetChoice::bytes); });
}

int64_t most_bytes(const std::vector<Item>& items) {
  return sum_of(items, [](const Item& item) { return std::ranges::max_element(item, {}, &BudgetChoice::bytes); });
}

std::optional<BudgetSolution> solve_budget(const std::vector<Item>& items, int64_t budget) {
  for (const Item& item : items) {
    CRUMB_ASSERT(!item.empty());
    for (const BudgetChoice& choice : item) CRUMB_ASSERT(std::isfinite(choice.loss) && choice.bytes >= 0);
  }
  return Solver(items, budget).solve();
}

}  // namespace crumb::ptq
