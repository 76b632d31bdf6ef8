// A device that there is not: the functions of CUDA's runtime library that this program calls, made anew over the
// executor of PTX. A program that links cuda_runtime.cpp and kernels that were compiled to PTX alone runs its own host
// code, launches and graphs included, with the kernels executed on the CPU. Device memory is memory of the host, which
// kernels may touch within what was allocated.
#pragma once

#include <cstdint>
#include <string>

#include "tests/ptx/executor.h"

namespace crumb::ptx {

/// What the device is, and what it did.
struct StandInDevice {
  int count = 1;  // devices
  std::string name = "compiled PTX executed on the CPU";
  int major = 8, minor = 0, multiprocessors = 4;
  uint64_t shared_bytes = 166912;  // a block may have, opted in
  uint64_t memory_bytes = uint64_t{1} << 30;
  uint64_t fails_after = UINT64_MAX;  // allocations that succeed, whatever memory there is
  bool has_code = true;
  Options options;

  uint64_t used_bytes = 0, allocations = 0;   // of the device's memory
  uint64_t launches = 0, graph_launches = 0;  // of kernels, those of graphs included; of graphs
};
/// The one of this process. CRUMB_PTX_SEED in the environment is the order in which warps take turns.
StandInDevice& stand_in_device();

}  // namespace crumb::ptx
