#include "core/common/log.h"

#include <atomic>
#include <cstdio>
#include <mutex>
#include <set>

namespace crumb {
namespace {
std::atomic<LogLevel> g_level{LogLevel::info};
std::atomic<bool> g_line_open{false};
}  // namespace

void set_log_level(LogLevel level) { g_level = level; }
LogLevel log_level() { return g_level; }

void set_line_open(bool is_open) { g_line_open = is_open; }
bool is_line_open() { return g_line_open; }

void log_line(LogLevel level, const std::string& text) {
  if (level > g_level) return;
  const char* prefix = level == LogLevel::warning ? "warning: " : "";
  const char* clear = g_line_open.exchange(false) ? "\r\033[K" : "";
  std::fprintf(stderr, "%s%s%s\n", clear, prefix, text.c_str());
}

void log_line_once(LogLevel level, const std::string& text) {
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::lock_guard lock(mutex);
  if (said.insert(text).second) log_line(level, text);
}

}  // namespace crumb
