// How long the rest of a run takes: steps and validations cost differently, and come at different rates.
#pragma once

#include <cstdint>
#include <optional>

namespace crumb::train {

class Pace {
 public:
  void add_step(double seconds) { steps_.add(seconds); }
  void add_validation(double seconds) { validations_.add(seconds); }

  /// Seconds that so many of each will take, by the mean so far; nothing before the first step. A resumed run has not
  /// seen a validation at first: they count nothing until then.
  std::optional<double> seconds_for(int64_t steps, int64_t validations) const {
    if (steps_.count == 0) return std::nullopt;
    return static_cast<double>(steps) * steps_.mean() + static_cast<double>(validations) * validations_.mean();
  }

 private:
  struct Mean {
    double sum = 0;
    int64_t count = 0;
    void add(double seconds) {
      sum += seconds;
      ++count;
    }
    double mean() const { return count == 0 ? 0.0 : sum / static_cast<double>(count); }
  };
  Mean steps_, validations_;
};

/// Validations after `step` of a run of `steps` that validates every `every` steps and after the last.
inline int64_t validations_left(int64_t step, int64_t steps, int64_t every) {
  if (step >= steps) return 0;
  const int64_t regular = steps / every - step / every;
  return regular + (steps % every == 0 ? 0 : 1);
}

}  // namespace crumb::train
