// How long to train, in what pieces, and the learning rate of each step.
#pragma once

#include <cstdint>

#include "train/options.h"

namespace crumb::train {

/// A schedule with everything known.
struct Plan {
  int64_t sequence_length = 0;
  int64_t tokens = 0;         // trained on: steps * batch_windows * sequence_length
  int64_t batch_windows = 0;  // windows a step
  int64_t micro_windows = 0;  // of them computed at once
  int64_t steps = 0;

  int64_t batch_tokens() const { return batch_windows * sequence_length; }
};

/// Tokens that keep a CPU busy.
constexpr int64_t kMicroTokens = int64_t{4} << 10;

/// `available_windows`: of one epoch; 0: unknown, then schedule.tokens must be given. `micro_tokens`: computed at once
/// at most, where the options leave it open; the pieces of a step are then of one size. UserError: fewer tokens than a
/// window.
Plan make_plan(const ScheduleOptions& options, int64_t sequence_length, int64_t available_windows,
               int64_t micro_tokens = kMicroTokens);

/// min(2048, context) unless given. UserError if more than the model declares.
int64_t choose_sequence_length(const DataOptions& options, int64_t context_length);

/// Factor of the learning rate at `step` (from 0) of `steps`: rises linearly over the warm-up, then cosine or linear to
/// 0, or flat and linear to 0 over the last decay_share (warmup-stable-decay, Hu et al., arXiv:2404.06395). Above 0 at
/// every step.
double lr_factor(const ScheduleOptions& options, int64_t step, int64_t steps);

}  // namespace crumb::train
