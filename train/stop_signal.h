// SIGINT and SIGTERM as a question: has someone asked us to stop?
#pragma once

namespace crumb::train {

/// While it lives, the first SIGINT or SIGTERM is remembered; a second one ends the program at once.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  static bool is_set();
};

}  // namespace crumb::train
