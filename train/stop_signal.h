// SIGINT and SIGTERM as a question: has someone asked us to stop?
#pragma once

namespace crumb::train {

/// While one lives, the first SIGINT or SIGTERM is remembered; a second one ends the program at once. What the signals
/// did before, they do again afterwards. One at a time.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  static bool is_set();
};

}  // namespace crumb::train
