#include "core/common/resident.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>

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

/// Of a control group, as a container sees its own: what it may use less what it does, of which caches give way.
struct GroupFiles {
  const char *most, *used, *details;
  std::initializer_list<std::string_view> caches;  // in `details`
};
int64_t available_in(const GroupFiles& group) {
  const int64_t most = number_in(group.most), used = number_in(group.used);
  if (most == kUnknown || used == kUnknown) return kUnknown;
  std::ifstream file(group.details);
  std::string name;
  int64_t bytes = 0, caches = 0;
  while (file >> name >> bytes) {
    if (std::ranges::find(group.caches, name) != group.caches.end()) caches += bytes;
  }
  return room_in_group(most, used, caches);
}
int64_t available_in_group() {
  const int64_t unified = available_in({"/sys/fs/cgroup/memory.max",
                                        "/sys/fs/cgroup/memory.current",
                                        "/sys/fs/cgroup/memory.stat",
                                        {"inactive_file", "active_file", "slab_reclaimable"}});
  const int64_t older = available_in({"/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                      "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                                      "/sys/fs/cgroup/memory/memory.stat",
                                      {"total_inactive_file", "total_active_file"}});
  return std::min(unified, older);
}

int64_t available_addresses() {
  rlimit limit{};
  const int64_t pages = number_in("/proc/self/statm");
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || pages == kUnknown) return kUnknown;
  return std::max<int64_t>(0, static_cast<int64_t>(limit.rlim_cur) - pages * sysconf(_SC_PAGESIZE));
}

}  // namespace

int64_t room_in_group(int64_t most, int64_t used, int64_t caches) {
  return std::max<int64_t>(0, most - std::max<int64_t>(0, used - caches));
}

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
