// Messages for the person at the terminal, on stderr; results go to stdout.
#pragma once

#include <fmt/format.h>

#include <string>

namespace crumb {

enum class LogLevel { quiet, warning, info, debug };

/// Messages above this level are dropped. Default: info.
void set_log_level(LogLevel level);
LogLevel log_level();

void log_line(LogLevel level, const std::string& text);
/// A warning that is the same each time a file is opened: said the first time only.
void log_line_once(LogLevel level, const std::string& text);

/// While a line that rewrites itself stands on the terminal (Progress), the next message takes its place.
void set_line_open(bool is_open);
bool is_line_open();

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning_once(fmt::format_string<Args...> format, Args&&... args) {
  log_line_once(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::debug, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace crumb
