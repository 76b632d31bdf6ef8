// Reading a mapped file from its beginning to its end, however large it is.
#pragma once

#include <cstdint>

#include "core/common/file.h"

namespace crumb::text {

/// Gives the pages of a mapped file back behind the one who reads it, a block at a time.
class ReleaseBehind {
 public:
  static constexpr int64_t kBlockBytes = int64_t{16} << 20;

  explicit ReleaseBehind(const MappedFile& file) : file_(file) {}
  /// Everything before `at`, which points into the file, was read. RunError: the file has become shorter meanwhile.
  void pass(const void* at) {
    const int64_t end = static_cast<const uint8_t*>(at) - file_.bytes().data();
    if (end - released_ < kBlockBytes) return;
    file_.release(released_, end - released_);
    released_ = end;
  }

 private:
  const MappedFile& file_;
  int64_t released_ = 0;
};

}  // namespace crumb::text
