#include "kernels/cpu_features.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <filesystem>

#include "tests/testing/testing.h"

namespace crumb::kernels {
namespace {

/// best_isa() asks once a process, so each value gets a process of its own; CRUMB_EMULATOR: what runs it.
testing::CommandResult with_isa(const std::string& value) {
  const auto self = std::filesystem::read_symlink("/proc/self/exe").string();
  return testing::run_command("CRUMB_ISA=" + value + " " CRUMB_EMULATOR " '" + self +
                              "' --gtest_also_run_disabled_tests --gtest_filter=*PrintsTheChoice");
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
  EXPECT_THAT(with_isa("avx1024").out,
              ::testing::HasSubstr("error: CRUMB_ISA=avx1024: known: reference, avx2, avx_vnni, avx512, avx512_vnni, "
                                   "avx512_bf16, amx, neon, neon_dotprod, neon_i8mm"));
}

TEST(CpuFeatures, AnInstructionSetOfAnotherMachineIsRefusedWithThoseOfThisOne) {
#if defined(__x86_64__)
  EXPECT_THAT(with_isa("neon").out, ::testing::HasSubstr("error: CRUMB_ISA=neon: this machine has reference"));
#else
  EXPECT_THAT(with_isa("avx2").out, ::testing::HasSubstr("error: CRUMB_ISA=avx2: this machine has reference"));
#endif
}

TEST(CpuFeatures, EveryInstructionSetOfThisMachineCanBeChosenAndTheLastIsTheDefault) {
  for (const Isa isa : available_isas()) {
    const std::string name(isa_name(isa));
    EXPECT_THAT(with_isa(name).out, ::testing::HasSubstr("chosen: " + name + "\n"));
  }
  EXPECT_THAT(with_isa("").out, ::testing::HasSubstr("chosen: " + std::string(isa_name(available_isas().back()))));
}

#if defined(__x86_64__)
/// Whether the system lets a process use tiles: some do not, whatever the processor has.
bool gives_tiles() {
#if defined(__linux__)
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}
#endif

TEST(CpuFeatures, TheInstructionSetsAreThoseOfTheSystem) {
#if defined(__x86_64__)
  const std::string flags = " " + testing::run_command("grep -m1 '^flags' /proc/cpuinfo | tr '\\n' ' '").out;
  const auto has = [&](const std::string& flag) { return flags.find(" " + flag + " ") != std::string::npos; };
  std::vector<Isa> expected{Isa::reference};
  if (has("avx2") && has("fma")) expected.push_back(Isa::avx2);
  if (expected.back() == Isa::avx2 && has("avx_vnni")) expected.push_back(Isa::avx_vnni);
  const bool has_avx512 = has("avx512f") && has("avx512bw") && has("avx512cd") && has("avx512dq") && has("avx512vl");
  if (has_avx512) expected.push_back(Isa::avx512);
  if (has_avx512 && has("avx512_vnni")) expected.push_back(Isa::avx512_vnni);
  if (expected.back() == Isa::avx512_vnni && has("avx512_bf16")) expected.push_back(Isa::avx512_bf16);
  if (expected.back() == Isa::avx512_bf16 && has("amx_tile") && has("amx_int8") && gives_tiles())
    expected.push_back(Isa::amx);
  EXPECT_EQ(std::vector<Isa>(available_isas().begin(), available_isas().end()), expected);
#else
  GTEST_SKIP() << "reads the flags of x86";
#endif
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
