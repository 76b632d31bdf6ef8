// Lines of standard input, and Ctrl-C as a question instead of an end.
#pragma once

#include <atomic>
#include <csignal>
#include <optional>
#include <string>

namespace crumb::cli {

/// While it lives, SIGINT sets a flag and ends waiting for input; what it did before comes back afterwards.
class InterruptFlag {
 public:
  InterruptFlag();
  ~InterruptFlag();
  InterruptFlag(const InterruptFlag&) = delete;
  InterruptFlag& operator=(const InterruptFlag&) = delete;

  std::atomic<bool>& flag() const;
  /// Does what SIGINT did before.
  void act_as_before() const;

 private:
  struct sigaction before_ {};
};

class LineReader {
 public:
  enum class End { line, input, interrupt };
  /// The next line without its end; what the input holds behind the last line end is a line, too. RunError where
  /// standard input cannot be read; UserError for a line of more than 16 MB.
  End read(std::string& line);

 private:
  std::string buffer_;
  bool is_at_end_ = false;
};

}  // namespace crumb::cli
