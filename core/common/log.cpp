#include "core/common/log.h"

#include <atomic>
#include <cstdio>

namespace crumb {
namespace {
std::atomic<LogLevel> g_level{LogLevel::info};
}

void set_log_level(LogLevel level) { g_level = level; }
LogLevel log_level() { return g_level; }

void log_line(LogLevel level, const std::string& text) {
  if (level > g_level) return;
  const char* prefix = level == LogLevel::warning ? "warning: " : "";
  std::fprintf(stderr, "%s%s\n", prefix, text.c_str());
}

}  // namespace crumb
