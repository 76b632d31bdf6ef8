// Confidence intervals by the bootstrap: clusters (windows or documents) are drawn anew with replacement, as many as
// there are, each with what model and baseline make of it, so everything is paired. The interval of a measure goes from
// the 2.5 to the 97.5 percentile of what the resamples give (Efron and Tibshirani, An Introduction to the Bootstrap,
// 1993, section 13.3).
#pragma once

#include <span>

#include "eval/perplexity.h"

namespace crumb::eval {

struct BootstrapOptions {
  int64_t resamples = 0;  // 0: none
  uint64_t seed = 0;
};

/// Gives the measures of `scores`, the summary of these clusters, their intervals, and drops their bounds, the 95
/// percentile. Not those of percentiles of single tokens, which sums do not have. Nothing for fewer than two clusters
/// with tokens. Draw i of resample b is number b * clusters + i of the stream: the same for every model judged on them.
void add_intervals(std::span<const WindowSums> clusters, bool with_baseline, const BootstrapOptions& options,
                   Scores& scores);

}  // namespace crumb::eval
