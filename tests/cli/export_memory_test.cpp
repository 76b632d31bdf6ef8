// The memory a converter needs does not grow with the model.
#include "tests/testing/testing.h"

namespace crumb {
namespace {

TEST(ExportMemory, StaysBelow300MegabytesForTwoBillionParameters) {
  CRUMB_NEED_PEERS(python);  // for numpy
  const auto script = testing::source_dir() / "tests" / "export" / "memory_test.py";
  const auto result = testing::run_command(python.string() + " " + script.string() + " " + testing::program().string());
  EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
}

}  // namespace
}  // namespace crumb
