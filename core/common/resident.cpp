#include "core/common/resident.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace crumb {
namespace {

constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();

/// The number a file begins with; kUnknown where there is none ("max").
int64_t number_in(const char* path) {
  std::ifstream file(path);
  int64_t number = 0;
  return file >> number ? number : kUnknown;
}

int64_t available_in_machine() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  int64_t kilobytes = 0;
  while (file >> name >> kilobytes && std::getline(file, unit)) {
    if (name == "MemAvailable:") return kilobytes * 1024;
  }
  return kUnknown;
}

/// As a container sees its own: what it may use less what it does, of which the cache of files gives way.
int64_t available_in_group() {
  const int64_t most = number_in("/sys/fs/cgroup/memory.max"), used = number_in("/sys/fs/cgroup/memory.current");
  if (most == kUnknown || used == kUnknown) return kUnknown;
  std::ifstream file("/sys/fs/cgroup/memory.stat");
  std::string name;
  int64_t bytes = 0, files = 0;
  while (file >> name >> bytes) {
    if (name == "inactive_file" || name == "active_file") files += bytes;
  }
  return std::max<int64_t>(0, most - used + files);
}

int64_t available_addresses() {
  rlimit limit{};
  const int64_t pages = number_in("/proc/self/statm");
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || pages == kUnknown) return kUnknown;
  return std::max<int64_t>(0, static_cast<int64_t>(limit.rlim_cur) - pages * sysconf(_SC_PAGESIZE));
}

}  // namespace

int64_t available_memory() { return std::min({available_in_machine(), available_in_group(), available_addresses()}); }

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0, resident_pages = 0;
  file >> pages >> resident_pages;
  return file ? resident_pages * sysconf(_SC_PAGESIZE) : 0;
}

int64_t peak_resident_bytes() {
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? int64_t{1024} * usage.ru_maxrss : 0;
}

}  // namespace crumb
