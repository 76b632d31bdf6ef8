#include "core/common/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "core/common/log.h"

namespace crumb {
namespace {

using ::testing::MatchesRegex;

std::string stderr_of(const std::function<void()>& body) {
  ::testing::internal::CaptureStderr();
  body();
  return ::testing::internal::GetCapturedStderr();
}

TEST(FormatDuration, ReadsLikeAPersonWouldSayIt) {
  EXPECT_EQ(format_duration(0), "0.0s");
  EXPECT_EQ(format_duration(1.26), "1.3s");
  EXPECT_EQ(format_duration(9.94), "9.9s");
  EXPECT_EQ(format_duration(9.97), "10s");
  EXPECT_EQ(format_duration(59.4), "59s");
  EXPECT_EQ(format_duration(59.6), "1m00s");
  EXPECT_EQ(format_duration(187), "3m07s");
  EXPECT_EQ(format_duration(3599.7), "1h00m");
  EXPECT_EQ(format_duration(3725), "1h02m");
}

TEST(Progress, AwayFromATerminalPrintsPlainLinesAndTheLastOne) {
  const std::string out = stderr_of([] {
    Progress p("rows", 2000, "rows");
    p.update(500);  // within ten seconds of the start: no line
    p.add(1500);
    p.finish("done");
    p.finish();
  });
  EXPECT_THAT(out, MatchesRegex("rows: 2,000/2,000 rows \\(100%\\), [0-9,]+/s, took [0-9.]+s, done\n"));
}

TEST(Progress, OfUnknownLengthCountsOnly) {
  EXPECT_THAT(stderr_of([] {
                Progress p("reading", 0, "tokens");
                p.update(12);
                p.finish();
              }),
              MatchesRegex("reading: 12 tokens, [0-9,]+/s, took [0-9.]+s\n"));
}

TEST(Progress, IsSilentWhenQuiet) {
  set_log_level(LogLevel::warning);
  EXPECT_EQ(stderr_of([] {
              Progress p("x", 1, "rows");
              p.update(1);
              p.finish();
              log_info("hidden");
            }),
            "");
  EXPECT_EQ(stderr_of([] { log_warning("{} of {}", 1, 2); }), "warning: 1 of 2\n");
  set_log_level(LogLevel::info);
  EXPECT_EQ(stderr_of([] {
              log_info("seen");
              log_debug("hidden");
            }),
            "seen\n");
}

}  // namespace
}  // namespace crumb
