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

TEST(CpuFeatures, FastBf16IsWhatTheSystemSays) {
#if defined(__x86_64__)
  const std::string flags = " " + testing::run_command("grep -m1 '^flags' /proc/cpuinfo | tr '\\n' ' '").out;
  ASSERT_THAT(flags, ::testing::HasSubstr(" sse2 "));
  const auto has = [&](const std::string& flag) { return flags.find(" " + flag + " ") != std::string::npos; };
  EXPECT_EQ(has_fast_bf16(), has("avx512_bf16") || has("amx_bf16"));
#else
  GTEST_SKIP() << "reads the flags of x86";
#endif
}

}  // namespace
}  // namespace crumb::kernels
