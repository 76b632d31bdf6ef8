#include "train/schedule.h"

#include <algorithm>
#include <cmath>

#include "core/common/error.h"

namespace crumb::train {
namespace {

constexpr int64_t kMostAutoTokens = int64_t{10} << 20, kMostAutoBatch = int64_t{64} << 10;
constexpr int64_t kAutoSteps = 400, kLongestAutoWindow = 2048;
constexpr double kPi = 3.14159265358979323846;

/// Small budgets train best by many small steps; large batches only save time.
int64_t auto_batch_windows(int64_t windows, int64_t length) {
  return std::clamp<int64_t>(windows / kAutoSteps, 1, std::max<int64_t>(1, kMostAutoBatch / length));
}

int64_t auto_micro_windows(int64_t batch, int64_t most) {
  const int64_t pieces = (batch + most - 1) / most;
  return (batch + pieces - 1) / pieces;
}

}  // namespace

int64_t choose_sequence_length(const DataOptions& options, int64_t context_length) {
  const int64_t length = options.sequence_length.value_or(std::min(kLongestAutoWindow, context_length));
  CRUMB_CHECK(length <= context_length, "data.sequence_length: {} is more than the {} tokens the model declares",
              length, context_length);
  return length;
}

Plan make_plan(const ScheduleOptions& options, int64_t sequence_length, int64_t available_windows,
               int64_t micro_tokens) {
  CRUMB_CHECK(available_windows > 0 || !options.tokens.is_auto(),
              "schedule.tokens: auto needs the text; give a number");
  const int64_t tokens = options.tokens.value_or(std::min(kMostAutoTokens, available_windows * sequence_length));
  const int64_t windows = tokens / sequence_length;
  CRUMB_CHECK(windows > 0, "schedule.tokens: {} is less than one window of {}", tokens, sequence_length);
  Plan plan{.sequence_length = sequence_length};
  plan.batch_windows = options.batch_tokens.is_auto()
                           ? auto_batch_windows(windows, sequence_length)
                           : std::clamp<int64_t>(*options.batch_tokens.value / sequence_length, 1, windows);
  plan.micro_windows =
      std::min(plan.batch_windows,
               options.micro_batch.is_auto()
                   ? auto_micro_windows(plan.batch_windows, std::max<int64_t>(1, micro_tokens / sequence_length))
                   : *options.micro_batch.value);
  plan.steps = std::max<int64_t>(1, windows / plan.batch_windows);
  plan.tokens = plan.steps * plan.batch_tokens();
  return plan;
}

double lr_factor(const ScheduleOptions& options, int64_t step, int64_t steps) {
  const auto warmup = static_cast<int64_t>(std::ceil(options.warmup * static_cast<double>(steps)));
  if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup + 1);
  if (options.decay == "wsd") {
    const auto decay = std::max<int64_t>(1, static_cast<int64_t>(options.decay_share * static_cast<double>(steps)));
    return std::min(1.0, static_cast<double>(steps - step) / static_cast<double>(decay + 1));
  }
  const double done = static_cast<double>(step - warmup) / static_cast<double>(std::max<int64_t>(1, steps - warmup));
  return options.decay == "linear" ? 1.0 - done : 0.5 * (1.0 + std::cos(kPi * done));
}

}  // namespace crumb::train
