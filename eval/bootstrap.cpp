#include "eval/bootstrap.h"

#include <algorithm>
#include <map>
#include <vector>

#include "core/common/rng.h"

namespace crumb::eval {

void add_intervals(std::span<const WindowSums> clusters, bool with_baseline, const BootstrapOptions& options,
                   Scores& scores) {
  std::vector<WindowSums> used;
  std::ranges::copy_if(clusters, std::back_inserter(used), [](const WindowSums& c) { return c.tokens > 0; });
  if (options.resamples == 0 || used.size() < 2) return;
  const Rng rng(options.seed, hash_name("bootstrap"));
  struct Draws {
    std::vector<double> values, drops;
  };
  std::map<std::string, Draws> draws;
  for (int64_t b = 0; b < options.resamples; ++b) {
    WindowSums sum;
    for (size_t i = 0; i < used.size(); ++i)
      sum += used[rng.below(static_cast<uint64_t>(b) * used.size() + i, used.size())];
    // The values of all measures are functions of the sums alone.
    for (const Measure& measure : summarize({&sum, 1}, with_baseline).measures) {
      Draws& of_measure = draws[measure.name];
      of_measure.values.push_back(measure.estimate.value);
      if (measure.drop) of_measure.drops.push_back(*measure.drop);
    }
  }
  for (Measure& measure : scores.measures) {
    const auto found = draws.find(measure.name);
    if (found == draws.end()) continue;
    auto& [values, drops] = found->second;
    std::ranges::sort(values);
    std::ranges::sort(drops);
    measure.interval = Interval{quantile(values, 0.025), quantile(values, 0.975)};
    if (!drops.empty()) measure.drop_bound = quantile(drops, 0.95);
  }
}

}  // namespace crumb::eval
