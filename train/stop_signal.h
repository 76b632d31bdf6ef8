// SIGINT and SIGTERM as a question: has someone asked us to stop?
#pragma once

#include <csignal>

namespace crumb::train {

/// While it lives, the first SIGINT or SIGTERM is remembered; a second one ends the program at once. What the signals
/// did before, they do again afterwards.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  static bool is_set();

 private:
  struct sigaction interrupt_before_ = {};
  struct sigaction terminate_before_ = {};
};

}  // namespace crumb::train
