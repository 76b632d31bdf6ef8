#include "core/common/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "core/common/log.h"
#include "core/common/quantity.h"

namespace crumb {

Progress::Progress(std::string label, int64_t total, std::string unit)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      terminal_(isatty(STDERR_FILENO) != 0),
      start_(std::chrono::steady_clock::now()),
      last_print_(start_) {}

Progress::~Progress() {
  // An exception is on its way: leave the error message a line of its own.
  if (finished_ || !terminal_ || !is_line_open()) return;
  std::fputc('\n', stderr);
  set_line_open(false);
}

void Progress::set_start(int64_t done) {
  start_done_ = done_ = done;
  start_ = last_print_ = std::chrono::steady_clock::now();
}

void Progress::update(int64_t done, const std::string& note, std::optional<double> seconds_left) {
  done_ = done;
  const auto now = std::chrono::steady_clock::now();
  const double wait = terminal_ ? 0.1 : 10.0;
  if (std::chrono::duration<double>(now - last_print_).count() < wait) return;
  last_print_ = now;
  print(false, note, seconds_left);
}

void Progress::finish(const std::string& note) {
  if (finished_) return;
  finished_ = true;
  print(true, note, std::nullopt);
}

void Progress::print(bool last, const std::string& note, std::optional<double> seconds_left) {
  if (log_level() < LogLevel::info) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(done_ - start_done_) / seconds : 0.0;
  std::string line = label_ + ": " + format_count(done_);
  if (total_ > 0)
    line += fmt::format("/{} {} ({:.0f}%)", format_count(total_), unit_,
                        100.0 * static_cast<double>(done_) / static_cast<double>(total_));
  else
    line += " " + unit_;
  line += fmt::format(", {}/s", format_count(static_cast<int64_t>(rate)));
  if (last)
    line += ", took " + format_duration(seconds);
  else if (total_ > 0 && rate > 0)
    line += ", " +
            format_duration(seconds_left.value_or(static_cast<double>(std::max<int64_t>(0, total_ - done_)) / rate)) +
            " left";
  if (!note.empty()) line += ", " + note;
  line = one_line(line);
  if (terminal_)
    std::fprintf(stderr, "\r\033[K%s%s", line.c_str(), last ? "\n" : "");
  else
    std::fprintf(stderr, "%s\n", line.c_str());
  std::fflush(stderr);
  if (terminal_) set_line_open(!last);
}

std::string format_duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (seconds < 9.95) return fmt::format("{:.1f}s", seconds);
  return fmt::format("{}s", s);
}

}  // namespace crumb
