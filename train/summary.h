// What a training run came to.
#pragma once

#include <cstdint>
#include <string>

namespace crumb::train {

struct TrainSummary {
  int64_t steps = 0, tokens = 0;
  std::string measure;  // what "best" goes by: "kl" or "cross_entropy" on the validation text, nats a token
  double start_value = 0, best_value = 0;
  int64_t best_step = 0;
  double seconds = 0, tokens_per_second = 0;  // of this call
  bool is_stopped = false;                    // by a signal: a checkpoint was saved
};

}  // namespace crumb::train
