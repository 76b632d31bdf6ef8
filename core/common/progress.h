// Progress of long work: one line that rewrites itself on a terminal, a plain line every ten seconds elsewhere. With
// rate and time left.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace crumb {

class Progress {
 public:
  /// total <= 0: unknown. unit: what is counted, in the plural ("tokens", "rows").
  Progress(std::string label, int64_t total, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Absolute position; `note` is appended to the line (for example "loss 2.31"). seconds_left: by who knows better
  /// than the rate tells.
  void update(int64_t done, const std::string& note = "", std::optional<double> seconds_left = std::nullopt);
  void add(int64_t n) { update(done_ + n); }
  /// The work begins now, with `done` of it done before (a resumed job): neither that nor the time so far counts.
  void set_start(int64_t done);
  void finish(const std::string& note = "");

 private:
  void print(bool last, const std::string& note, std::optional<double> seconds_left);

  std::string label_, unit_;
  int64_t total_, done_ = 0, start_done_ = 0;
  bool terminal_, finished_ = false;
  std::chrono::steady_clock::time_point start_, last_print_;
};

/// "1h02m", "3m07s", "12s".
std::string format_duration(double seconds);

/// Wall-clock seconds since construction.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace crumb
