// The time left of a run.
#include "train/pace.h"

#include <gtest/gtest.h>

namespace crumb::train {
namespace {

TEST(Pace, StepsAndValidationsCountApart) {
  Pace pace;
  pace.add_validation(60);  // before the first step
  EXPECT_EQ(pace.seconds_for(100, 2), std::nullopt);
  pace.add_step(2);
  pace.add_step(4);
  EXPECT_EQ(pace.seconds_for(100, 2), 100 * 3.0 + 2 * 60.0);
  EXPECT_EQ(pace.seconds_for(0, 0), 0.0);
}

TEST(Pace, AResumedRunCountsStepsUntilItHasValidated) {
  Pace pace;
  pace.add_step(5);
  EXPECT_EQ(pace.seconds_for(10, 3), 50.0);
}

TEST(Pace, ValidationsComeAtMultiplesAndAtTheEnd) {
  EXPECT_EQ(validations_left(0, 100, 25), 4);
  EXPECT_EQ(validations_left(25, 100, 25), 3);
  EXPECT_EQ(validations_left(26, 90, 25), 3);  // 50, 75, 90
  EXPECT_EQ(validations_left(99, 100, 25), 1);
  EXPECT_EQ(validations_left(100, 100, 25), 0);
  EXPECT_EQ(validations_left(0, 16, 50), 1);
}

}  // namespace
}  // namespace crumb::train
