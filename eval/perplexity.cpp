#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "core/common/error.h"
#include "eval/paired.h"

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

template <class T>
double quantile_of(std::span<const T> sorted, double share) {
  CRUMB_ASSERT(!sorted.empty() && share >= 0 && share <= 1);
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const double low = sorted[below], high = sorted[std::min(below + 1, sorted.size() - 1)];
  return low + (place - static_cast<double>(below)) * (high - low);
}

// sqrt(x), by the delta method.
Estimate root(const Estimate& x) {
  const double value = std::sqrt(x.value);
  if (!x.standard_error) return {value, std::nullopt};
  return {value, value > 0 ? 0.5 / value * *x.standard_error : 0.0};
}

Measure detail(const char* name, const Estimate& estimate, const Column& column) {
  Measure measure;
  measure.name = name;
  measure.estimate = estimate;
  measure.detail = column;
  return measure;
}

/// One-sided, of a drop of this value with the error of an estimate.
std::optional<double> upper_bound(double drop, const Estimate& estimate) {
  if (!estimate.standard_error) return std::nullopt;
  return drop + kBoundErrors * *estimate.standard_error;
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
  perplexity.drop_bound = upper_bound(relative.value, relative);
  measures.push_back({"baseline_perplexity", exponential(baseline), {"baseline", 1, 3}});
  measures.push_back({"perplexity_change", relative, {"change %", 100, 2, true}});
  measures.push_back({"perplexity_increase", {p - q, mixed.standard_error}});
  const Column kl_column{"KL, nats/token", 1, 4}, top1_column{"same top-1 %", 100, 2};
  measures.push_back({"kl", kl, kl_column, kl.value, kl_column, upper_bound(kl.value, kl)});
  measures.push_back({"top1", top1, top1_column, 1.0 - top1.value, top1_column, upper_bound(1.0 - top1.value, top1)});
  const Estimate top5 = mean_of(windows, [](const WindowSums& w) { return w.shared_top5; });
  const Estimate delta_p = mean_of(windows, [](const WindowSums& w) { return w.delta_p; });
  const Estimate square = mean_of(windows, [](const WindowSums& w) { return w.squared_delta_p; });
  measures.push_back(detail("top5", top5, {"shared top-5 %", 100, 2}));
  measures.push_back(detail("delta_p", delta_p, {"Δp %", 100, 2, true}));
  measures.push_back(detail("delta_p_rms", root(square), {"RMS Δp %", 100, 2}));
}

void add_percentiles(std::vector<float> divergences, std::vector<Measure>& measures) {
  struct Percentile {
    const char *name, *title;
    double share;
  };
  constexpr Percentile kPercentiles[] = {{"kl_p50", "median", 0.5},     {"kl_p90", "90 %", 0.9},
                                         {"kl_p95", "95 %", 0.95},      {"kl_p99", "99 %", 0.99},
                                         {"kl_p99_9", "99.9 %", 0.999}, {"kl_max", "largest", 1}};
  std::ranges::sort(divergences);
  for (const auto& [name, title, share] : kPercentiles)
    measures.push_back(detail(name, {quantile(divergences, share)}, {title, 1, 4}));
}

}  // namespace

void WindowSums::add(const TokenScore& score, int64_t bytes_of_token) {
  ++tokens;
  bytes += bytes_of_token;
  nll += score.nll;
  baseline_nll += score.baseline_nll;
  kl += score.kl;
  same_top += score.same_top ? 1 : 0;
  shared_top5 += score.shared_top5;
  delta_p += score.delta_p();
  squared_delta_p += score.delta_p() * score.delta_p();
}

WindowSums& WindowSums::operator+=(const WindowSums& other) {
  tokens += other.tokens;
  bytes += other.bytes;
  words += other.words;
  nll += other.nll;
  baseline_nll += other.baseline_nll;
  kl += other.kl;
  same_top += other.same_top;
  shared_top5 += other.shared_top5;
  delta_p += other.delta_p;
  squared_delta_p += other.squared_delta_p;
  return *this;
}

double quantile(std::span<const float> sorted, double share) { return quantile_of(sorted, share); }
double quantile(std::span<const double> sorted, double share) { return quantile_of(sorted, share); }

Scores summarize(std::span<const WindowSums> windows, bool with_baseline, std::vector<float> divergences) {
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
  if (std::ranges::any_of(used, [](const WindowSums& w) { return w.words > 0; })) {
    const std::span<const WindowSums> all(used);
    const auto nll = [](const WindowSums& w) { return w.nll; };
    const auto by_word = exponential(ratio_of(all, nll, [](const WindowSums& w) { return w.words; }));
    const auto by_byte = exponential(ratio_of(all, nll, [](const WindowSums& w) { return w.bytes; }));
    scores.measures.push_back({"word_perplexity", by_word, {"word perplexity", 1, 3}});
    scores.measures.push_back({"byte_perplexity", by_byte, {"byte perplexity", 1, 4}});
  }
  if (with_baseline) add_comparison(used, scores.measures);
  if (!divergences.empty()) add_percentiles(std::move(divergences), scores.measures);
  return scores;
}

}  // namespace crumb::eval
