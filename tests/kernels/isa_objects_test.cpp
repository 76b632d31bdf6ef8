// The object files of kernels/isa/ share no function: an inline function with external linkage is kept once by the
// linker, and the copy kept may be one that this machine cannot run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "tests/testing/testing.h"

namespace crumb::kernels {
namespace {

/// Symbols that an object file defines for others to see: "TYPE NAME". CRUMB_ISA_OBJECTS: the files, by colons.
std::vector<std::string> shared_symbols(const std::string& object) {
  std::istringstream lines(testing::run_command("nm -C --defined-only --extern-only '" + object + "'").out);
  std::vector<std::string> symbols;
  for (std::string line; std::getline(lines, line);) {
    if (line.size() > 17) symbols.push_back(line.substr(17));  // after the address
  }
  return symbols;
}

TEST(IsaObjects, DefineNothingButTheirTable) {
#ifdef CRUMB_SANITIZED
  GTEST_SKIP() << "sanitizers add symbols of their own";
#endif
  if (testing::run_command("nm --version").exit_code != 0) GTEST_SKIP() << "needs nm";
  std::istringstream objects(CRUMB_ISA_OBJECTS);
  int64_t checked = 0;
  for (std::string object; std::getline(objects, object, ':');) {
    const std::string name = std::filesystem::path(object).filename().string();
    const std::string table = name.starts_with("amx.")          ? "kAmxTable"
                              : name.starts_with("avx512_bf16") ? "kAvx512Bf16Table"
                              : name.starts_with("avx512_vnni") ? "kAvx512VnniTable"
                              : name.starts_with("avx512")      ? "kAvx512Table"
                              : name.starts_with("avx_vnni")    ? "kAvxVnniTable"
                              : name.starts_with("avx2")        ? "kAvx2Table"
                              : name.starts_with("neon_i8mm")   ? "kNeonI8mmTable"
                              : name.starts_with("neon_dot")    ? "kNeonDotprodTable"
                              : name.starts_with("neon")        ? "kNeonTable"
                                                                : "";
    if (table.empty()) continue;
    if (!std::filesystem::exists(object)) GTEST_SKIP() << "needs the folder it was built in: " << object;
    EXPECT_THAT(shared_symbols(object), ::testing::ElementsAre(::testing::HasSubstr("crumb::kernels::" + table)))
        << object;
    ++checked;
  }
#if defined(__x86_64__)
  EXPECT_EQ(checked, 6) << CRUMB_ISA_OBJECTS;
#elif defined(__aarch64__)
  EXPECT_EQ(checked, 3) << CRUMB_ISA_OBJECTS;
#endif
}

}  // namespace
}  // namespace crumb::kernels
