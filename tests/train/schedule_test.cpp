#include "train/schedule.h"

#include <gmock/gmock.h>

#include <cmath>

#include "tests/testing/testing.h"

namespace crumb::train {
namespace {

using ::testing::HasSubstr;

TEST(Schedule, RisesLinearlyThenFallsAsACosine) {
  const ScheduleOptions options{.warmup = 0.1, .decay = "cosine"};
  EXPECT_DOUBLE_EQ(lr_factor(options, 0, 100), 1.0 / 11);
  EXPECT_DOUBLE_EQ(lr_factor(options, 9, 100), 10.0 / 11);
  EXPECT_DOUBLE_EQ(lr_factor(options, 10, 100), 1.0);
  EXPECT_NEAR(lr_factor(options, 55, 100), 0.5, 1e-12);
  EXPECT_NEAR(lr_factor(options, 99, 100), 0.5 * (1 + std::cos(M_PI * 89 / 90)), 1e-12);
}

TEST(Schedule, LinearAndWsdFallInStraightLines) {
  const ScheduleOptions linear{.warmup = 0, .decay = "linear"};
  for (int64_t step = 0; step < 50; ++step)
    EXPECT_NEAR(lr_factor(linear, step, 50), 1.0 - static_cast<double>(step) / 50, 1e-12);
  const ScheduleOptions wsd{.warmup = 0, .decay = "wsd", .decay_share = 0.2};
  EXPECT_DOUBLE_EQ(lr_factor(wsd, 79, 100), 1.0);
  EXPECT_NEAR(lr_factor(wsd, 90, 100), 10.0 / 21, 1e-12);
  EXPECT_NEAR(lr_factor(wsd, 99, 100), 1.0 / 21, 1e-12);
}

TEST(Schedule, IsNeverZeroAndNeverAboveOne) {
  for (const char* decay : {"cosine", "linear", "wsd"}) {
    for (const int64_t steps : {1, 2, 7, 400}) {
      for (int64_t step = 0; step < steps; ++step) {
        const double factor = lr_factor({.warmup = 0.03, .decay = decay}, step, steps);
        EXPECT_GT(factor, 0) << decay << " " << step << " of " << steps;
        EXPECT_LE(factor, 1);
      }
    }
  }
}

TEST(Plan, SmallBudgetsGetManySmallSteps) {
  const Plan small = make_plan({.tokens = 102400}, 512, 1 << 20);
  EXPECT_EQ(small.batch_windows, 1);
  EXPECT_EQ(small.steps, 200);
  const Plan larger = make_plan({.tokens = 499712}, 512, 1 << 20);
  EXPECT_EQ(larger.batch_windows, 2);
  EXPECT_EQ(larger.steps, 488);
  const Plan large = make_plan({.tokens = int64_t{1} << 30}, 2048, 1 << 20);
  EXPECT_EQ(large.batch_tokens(), 64 << 10);
}

TEST(Plan, AutoTokensAreOneEpochOfAtMostTenMillion) {
  EXPECT_EQ(make_plan({}, 512, 100).tokens, 51200);
  const Plan most = make_plan({}, 512, 1 << 20);  // 51 windows a step: the last 26 make no whole one
  EXPECT_LE(most.tokens, 10 << 20);
  EXPECT_GT(most.tokens, (10 << 20) - most.batch_tokens());
  EXPECT_THAT(testing::error_of([] { make_plan({}, 512, 0); }), HasSubstr("schedule.tokens: auto needs the text"));
  EXPECT_THAT(testing::error_of([] { make_plan({.tokens = 100}, 512, 9); }), HasSubstr("less than one window of 512"));
}

TEST(Plan, PiecesOfAStepAreOfOneSizeAndFitTheMemory) {
  const auto micro = [](ScheduleOptions options, int64_t micro_tokens) {
    options.tokens = int64_t{1} << 20;
    return make_plan(options, 512, 0, micro_tokens).micro_windows;
  };
  EXPECT_EQ(micro({.batch_tokens = 512 * 9}, 4096), 5);  // 5 and 4, not 8 and 1
  EXPECT_EQ(micro({.batch_tokens = 512 * 64}, 4096), 8);
  EXPECT_EQ(micro({.batch_tokens = 512 * 64}, 1 << 20), 64);  // never more than the step
  EXPECT_EQ(micro({.batch_tokens = 512 * 64}, 100), 1);
  EXPECT_EQ(micro({.batch_tokens = 512 * 9, .micro_batch = 8}, 512), 8);  // what is asked for
}

TEST(Plan, SequenceLengthIsWhatTheModelDeclaresUpTo2048) {
  EXPECT_EQ(choose_sequence_length({}, 512), 512);
  EXPECT_EQ(choose_sequence_length({}, 131072), 2048);
  EXPECT_THAT(testing::error_of([] { choose_sequence_length({.sequence_length = 1024}, 512); }),
              HasSubstr("1024 is more than the 512"));
}

}  // namespace
}  // namespace crumb::train
