// The program of docs/library.md, run as a user would.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/testing/testing.h"

namespace crumb::qat {
namespace {

TEST(LibraryExample, TrainsSeqLinearsOfItsOwnModel) {
  const auto program = testing::binary_dir() / "bin" / "example_seq_linears";
  ASSERT_TRUE(testing::fs::exists(program)) << program;
  const auto result = testing::run_command(program.string());
  ASSERT_EQ(result.exit_code, 0) << result.err;
  double rounded = 0, trained = 0;
  ASSERT_EQ(std::sscanf(result.out.c_str(), "rounded: loss %lf, trained: loss %lf", &rounded, &trained), 2)
      << result.out;
  EXPECT_LT(trained, 0.5 * rounded);
}

}  // namespace
}  // namespace crumb::qat
