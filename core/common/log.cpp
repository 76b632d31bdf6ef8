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

int control_bytes(const char* at) {
  const auto first = static_cast<unsigned char>(at[0]), second = static_cast<unsigned char>(first == 0 ? 0 : at[1]);
  if (first == 0xc2 && second >= 0x80 && second < 0xa0) return 2;  // U+0080 to U+009F: terminals obey them, too
  return (first > 0 && first < ' ') || first == 0x7f ? 1 : 0;
}

std::array<char, 5> written_out(char byte) {
  switch (byte) {
    case '\n':
      return {'\\', 'n'};
    case '\r':
      return {'\\', 'r'};
    case '\t':
      return {'\\', 't'};
    default:
      constexpr const char* kDigits = "0123456789abcdef";
      const auto value = static_cast<unsigned char>(byte);
      return {'\\', 'x', kDigits[value >> 4], kDigits[value & 15]};
  }
}

std::string one_line(std::string_view text) {
  std::string out;
  const std::string ended(text);
  for (const char *at = ended.c_str(), *end = at + ended.size(); at != end;) {
    int bytes = *at == '\0' ? 1 : control_bytes(at);
    if (bytes == 0) out += *at++;
    for (; bytes > 0; --bytes) out += written_out(*at++).data();
  }
  return out;
}

void print_error(const std::vector<std::string>& messages) {
  const char* prefix = g_line_open.exchange(false) ? "\r\033[Kcrumb: " : "crumb: ";
  for (const std::string& message : messages) {
    std::fprintf(stderr, "%s%s\n", prefix, one_line(message).c_str());
    prefix = "";
  }
}

void log_line(LogLevel level, const std::string& text) {
  if (level > g_level) return;
  const char* prefix = level == LogLevel::warning ? "warning: " : "";
  const char* clear = g_line_open.exchange(false) ? "\r\033[K" : "";
  std::fprintf(stderr, "%s%s%s\n", clear, prefix, one_line(text).c_str());
}

void log_line_once(LogLevel level, const std::string& text) {
  static std::mutex mutex;
  static std::set<std::string> said;
  const std::lock_guard lock(mutex);
  if (said.insert(text).second) log_line(level, text);
}

}  // namespace crumb
