#include "kernels/cpu_features.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/testing/testing.h"

namespace crumb::kernels {
namespace {

/// best_isa() asks once a process, so each value gets a process of its own.
testing::CommandResult with_isa(const std::string& value) {
  return testing::run_command("CRUMB_ISA=" + value + " /proc/" + std::to_string(getpid()) +
                              "/exe --gtest_also_run_disabled_tests --gtest_filter=*PrintsTheChoice");
}

TEST(CpuFeatures, DISABLED_PrintsTheChoice) {
  try {
    std::printf("chosen: %s\n", std::string(isa_name(best_isa())).c_str());
  } catch (const Error& e) {
    std::printf("error: %s\n", e.what());
  }
}

TEST(CpuFeatures, EnvironmentLowersTheChoice) {
  EXPECT_THAT(with_isa("reference").out, ::testing::HasSubstr("chosen: reference"));
}

TEST(CpuFeatures, UnknownInstructionSetIsNamed) {
  EXPECT_THAT(with_isa("avx1024").out, ::testing::HasSubstr("error: CRUMB_ISA=avx1024: known: reference, avx2"));
}

}  // namespace
}  // namespace crumb::kernels
