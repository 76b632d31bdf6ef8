#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/common/error.h"

namespace crumb::eval {
namespace {

// Per-window sums of one quantity over those of another, such as tokens: their ratio.
template <class Sum, class Size>
Estimate ratio_of(std::span<const WindowSums> windows, const Sum& sum, const Size& size) {
  double total = 0, sizes = 0, squares = 0;
  for (const auto& w : windows) {
    total += sum(w);
    sizes += static_cast<double>(size(w));
  }
  const double ratio = total / sizes;
  for (const auto& w : windows) {
    const double residual = sum(w) - ratio * static_cast<double>(size(w));
    squares += residual * residual;
  }
  const auto n = static_cast<double>(windows.size());
  if (windows.size() < 2) return {ratio, std::nullopt};
  return {ratio, std::sqrt(n / (n - 1) * squares) / sizes};
}

// As an estimate of a mean over tokens.
template <class Sum>
Estimate mean_of(std::span<const WindowSums> windows, const Sum& sum) {
  return ratio_of(windows, sum, [](const WindowSums& w) { return w.tokens; });
}

// exp(x) - shift, by the delta method.
Estimate exponential(const Estimate& x, double shift = 0) {
  const double value = std::exp(x.value);
  return {value - shift, x.standard_error ? std::optional(value * *x.standard_error) : std::nullopt};
}

void add_comparison(std::span<const WindowSums> windows, std::vector<Measure>& measures) {
  const Estimate baseline = mean_of(windows, [](const WindowSums& w) { return w.baseline_nll; });
  const Estimate change = mean_of(windows, [](const WindowSums& w) { return w.nll - w.baseline_nll; });
  Measure& perplexity = measures[1];
  const double p = perplexity.estimate.value, q = std::exp(baseline.value);
  // d(p - q) = p d(log p) - q d(log q): the error of this combination of the two sums is that of the difference.
  const Estimate mixed = mean_of(windows, [&](const WindowSums& w) { return p * w.nll - q * w.baseline_nll; });
  const Estimate relative = exponential(change, 1.0);
  const Estimate kl = mean_of(windows, [](const WindowSums& w) { return w.kl; });
  const Estimate top1 = mean_of(windows, [](const WindowSums& w) { return w.same_top; });
  perplexity.drop = relative.value;
  measures.push_back({"baseline_perplexity", exponential(baseline), {"baseline", 1, 3}});
  measures.push_back({"perplexity_change", relative, {"change %", 100, 2, true}});
  measures.push_back({"perplexity_increase", {p - q, mixed.standard_error}});
  measures.push_back({.name = "kl", .estimate = kl, .shown = {"KL, nats/token", 1, 4}, .drop = kl.value});
  measures.push_back({.name = "top1", .estimate = top1, .shown = {"same top-1 %", 100, 2}, .drop = 1.0 - top1.value});
}

}  // namespace

void WindowSums::add(const TokenScore& score, int64_t bytes_of_token) {
  ++tokens;
  bytes += bytes_of_token;
  nll += score.nll;
  baseline_nll += score.baseline_nll;
  kl += score.kl;
  same_top += score.same_top ? 1 : 0;
}

Scores summarize(std::span<const WindowSums> windows, bool with_baseline) {
  std::vector<WindowSums> used;
  std::copy_if(windows.begin(), windows.end(), std::back_inserter(used),
               [](const WindowSums& w) { return w.tokens > 0; });
  Scores scores;
  scores.windows = static_cast<int64_t>(used.size());
  for (const auto& w : used) scores.tokens += w.tokens;
  if (used.empty()) return scores;
  const Estimate cross_entropy = mean_of(used, [](const WindowSums& w) { return w.nll; });
  scores.measures.push_back({"cross_entropy", cross_entropy});
  scores.measures.push_back({"perplexity", exponential(cross_entropy), {"perplexity", 1, 3}});
  if (std::ranges::any_of(used, [](const WindowSums& w) { return w.bytes > 0; })) {
    const auto bits = [](const WindowSums& w) { return w.nll / std::numbers::ln2; };
    scores.measures.push_back(
        {"bits_per_byte",
         ratio_of(std::span<const WindowSums>(used), bits, [](const WindowSums& w) { return w.bytes; }),
         {"bits/byte", 1, 4}});
  }
  if (with_baseline) add_comparison(used, scores.measures);
  return scores;
}

}  // namespace crumb::eval
