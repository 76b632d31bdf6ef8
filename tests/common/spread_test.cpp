#include "core/common/spread.h"

#include <gtest/gtest.h>

namespace crumb {
namespace {

TEST(Spread, IsTheMiddleAndTheEnds) {
  const Spread odd = spread_of({5, 1, 9}), even = spread_of({4, 1, 9, 2}), one = spread_of({3});
  EXPECT_EQ(odd.median, 5);
  EXPECT_EQ(odd.least, 1);
  EXPECT_EQ(odd.most, 9);
  EXPECT_EQ(even.median, 3);
  EXPECT_EQ(one.median, 3);
  EXPECT_EQ(one.least, 3);
  EXPECT_EQ(one.most, 3);
}

}  // namespace
}  // namespace crumb
