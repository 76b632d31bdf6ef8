// Devices that are not the CPU, for tests of code that takes a device: what it computes there must be what it computes
// on the CPU.
#pragma once

#include <torch/torch.h>

#include <string>

#include "tests/testing/testing.h"

namespace crumb::testing {

/// A device every machine has: a backend of Torch whose memory the program must not touch (touching it is a
/// segmentation fault), with every operation done on the CPU on copies. A tensor that stayed on the CPU by mistake, or
/// a pointer into device memory, fails here as on a GPU; results are the CPU's own.
torch::Device stand_in_device();

/// "stand_in" or "cuda", as the parameter of a test.
inline torch::Device device_of(const std::string& name) {
  return name == "cuda" ? torch::Device(torch::kCUDA, 0) : stand_in_device();
}

/// For INSTANTIATE_TEST_SUITE_P: what differentiates needs a GPU, as Torch's backward pass asks a device that it knows
/// for its stream; what does not runs on the stand-in, too.
inline auto gpus() { return ::testing::Values("cuda"); }
inline auto all_devices() { return ::testing::Values("stand_in", "cuda"); }

/// Test suites over devices.
class OnDevice : public ::testing::TestWithParam<const char*> {
 protected:
  bool is_gpu() const { return std::string(GetParam()) == "cuda"; }
  torch::Device chosen() const { return device_of(GetParam()); }
  /// Share by which results may differ from the CPU's: a GPU adds in another order.
  double tolerance() const { return is_gpu() ? 1e-4 : 1e-6; }
};

}  // namespace crumb::testing

/// At the start of a test of OnDevice: the device as `variable`, or no test where it is a GPU and Torch sees none.
#define CRUMB_NEED_DEVICE(variable)                                                                        \
  if (is_gpu() && !torch::cuda::is_available())                                                            \
    CRUMB_CANNOT_RUN("CRUMB_REQUIRE_CUDA", "needs a GPU that Torch sees, and a build with its libraries"); \
  const torch::Device variable = chosen()
