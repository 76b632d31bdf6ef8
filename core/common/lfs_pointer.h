// Git LFS pointers: the few lines of text that stand for a large file where a repository was cloned without its files.
#pragma once

#include <span>
#include <string_view>

#include "core/common/error.h"
#include "core/common/file.h"

namespace crumb {

/// UserError when these bytes of the file `path` begin a pointer. Source: the Git LFS specification, "The Pointer".
inline void refuse_lfs_pointer(const Path& path, std::span<const uint8_t> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  CRUMB_CHECK(!text.starts_with("version https://git-lfs"),
              "{}: a Git LFS pointer, not the file; fetch it: git lfs pull", path.string());
}

}  // namespace crumb
