#include "core/common/error.h"

#include <gtest/gtest.h>

namespace crumb {
namespace {

TEST(Error, CarriesItsExitCode) {
  try {
    user_error("{}: {} is not {}", "a.txt", 3, 4);
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "a.txt: 3 is not 4");
    EXPECT_EQ(e.exit_code(), 2);
  }
  try {
    run_error("disk full");
  } catch (const Error& e) {
    EXPECT_EQ(e.exit_code(), 1);
  }
  EXPECT_THROW(CRUMB_CHECK(1 > 2, "no"), UserError);
  EXPECT_NO_THROW(CRUMB_CHECK(2 > 1, "no"));
}

TEST(AssertDeathTest, StopsTheProgramWithConditionAndPlace) {
  CRUMB_ASSERT(1 < 2);
  EXPECT_DEATH(CRUMB_ASSERT(1 > 2), "crumb: internal error: .*error_test.cpp:[0-9]+: 1 > 2");
}

}  // namespace
}  // namespace crumb
