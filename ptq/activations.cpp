#include "ptq/activations.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/common/error.h"
#include "core/common/quantity.h"

namespace crumb::ptq {

torch::Tensor ActivationMemory::make(at::IntArrayRef shape) {
  int64_t bytes = static_cast<int64_t>(sizeof(float));
  for (const int64_t size : shape) bytes *= size;
  if (static_cast<double>(bytes) > left_) return in_file(shape, bytes);
  left_ -= static_cast<double>(bytes);
  return torch::empty(shape);
}

torch::Tensor ActivationMemory::in_file(at::IntArrayRef shape, int64_t bytes) {
  std::string name = (folder_ / "activations.XXXXXX").string();
  const int fd = ::mkstemp(name.data());
  const auto fail = [&](int error) {
    run_error(
        "{}: no room for {} of activations: {}; free some, or raise calibration.memory or lower calibration.tokens",
        folder_.string(), format_bytes(bytes), std::strerror(error));
  };
  if (fd < 0) fail(errno);
  ::unlink(name.c_str());  // it goes when the tensor does, or the process
  const int error = ::posix_fallocate(fd, 0, bytes);
  void* data =
      error == 0 ? ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
  const int map_error = errno;
  ::close(fd);
  if (error != 0) fail(error);
  if (data == MAP_FAILED) fail(map_error);
  spilled_ += bytes;
  return torch::from_blob(
      data, shape, [bytes](void* at) { ::munmap(at, static_cast<size_t>(bytes)); }, torch::kFloat32);
}

}  // namespace crumb::ptq
