// A disk that is soon full.
#pragma once

#include <sys/mount.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace crumb::testing {

namespace fs = std::filesystem;

/// A disk of its own, with room for `bytes`, mounted while it lives; not everyone may mount.
class SmallDisk {
 public:
  explicit SmallDisk(const fs::path& place, int64_t bytes, int inodes = 100) : place_(place) {
    fs::create_directories(place);
    const std::string options = "size=" + std::to_string(bytes) + ",nr_inodes=" + std::to_string(inodes);
    is_mounted_ = mount("none", place.c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  ~SmallDisk() {
    if (is_mounted_) umount(place_.c_str());
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool is_mounted() const { return is_mounted_; }
  void grow_to(int64_t bytes) {
    mount("none", place_.c_str(), "tmpfs", MS_REMOUNT, ("size=" + std::to_string(bytes)).c_str());
  }

 private:
  fs::path place_;
  bool is_mounted_ = false;
};

}  // namespace crumb::testing
