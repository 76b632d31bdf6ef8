#include "ptq/activations.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/common/error.h"
#include "core/common/quantity.h"

namespace crumb::ptq {
namespace {

/// A file without a name, which goes with its last use; -1 and errno.
int open_unnamed(const Path& folder) {
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) return fd;
  std::string name = (folder / "activations.XXXXXX").string();  // a file system without such files
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named >= 0) ::unlink(name.c_str());
  return named;
}

}  // namespace

torch::Tensor ActivationMemory::make(at::IntArrayRef shape) {
  int64_t bytes = static_cast<int64_t>(sizeof(float));
  for (const int64_t size : shape) bytes *= size;
  if (static_cast<double>(bytes) > *left_) return in_file(shape, bytes);
  *left_ -= static_cast<double>(bytes);
  // Torch's own memory, with a deleter that tells us.
  torch::Tensor tensor;
  try {
    tensor = torch::empty(shape);
  } catch (const c10::Error&) {
    run_error("no memory for {} of activations; set calibration.memory, or lower calibration.tokens",
              format_bytes(bytes));
  }
  auto* owner = new torch::Tensor(std::move(tensor));
  return torch::from_blob(
      owner->data_ptr(), shape,
      [owner, bytes, left = left_](void*) {
        *left += static_cast<double>(bytes);
        delete owner;
      },
      torch::kFloat32);
}

torch::Tensor ActivationMemory::in_file(at::IntArrayRef shape, int64_t bytes) {
  const auto fail = [&](int error) {
    run_error("{}: no room for {} of activations: {}; free some, or raise calibration.memory", folder_.string(),
              format_bytes(bytes), std::strerror(error));
  };
  const int fd = open_unnamed(folder_);
  if (fd < 0) fail(errno);
  const int error = ::posix_fallocate(fd, 0, bytes);
  void* data =
      error == 0 ? ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  const int map_error = errno;
  ::close(fd);
  if (error != 0) fail(error);
  if (data == MAP_FAILED) fail(map_error);
  return torch::from_blob(
      data, shape, [bytes](void* at) { ::munmap(at, static_cast<size_t>(bytes)); }, torch::kFloat32);
}

}  // namespace crumb::ptq
