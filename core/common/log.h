// Messages for the person at the terminal, on stderr; results go to stdout.
#pragma once

#include <fmt/format.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace crumb {

enum class LogLevel { quiet, warning, info, debug };

/// Messages above this level are dropped. Default: info.
void set_log_level(LogLevel level);
LogLevel log_level();

/// A message as one line: control characters, which names of files may hold, are written out (\n, \x1b), so that none
/// breaks the line or speaks to the terminal. Every message passes through it where it is printed, and nowhere else.
std::string one_line(std::string_view text);
/// How many bytes of a control character stand at `at` (0: another character); ends with '\0'. And such a byte written
/// out. For a signal handler, too: neither allocates.
int control_bytes(const char* at);
std::array<char, 5> written_out(char byte);

/// "crumb: MESSAGE" on stderr; further messages follow, a line each.
void print_error(const std::vector<std::string>& messages);

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
