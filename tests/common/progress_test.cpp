#include "core/common/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <thread>

#include "core/common/log.h"

namespace crumb {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

std::string stderr_of(const std::function<void()>& body) {
  ::testing::internal::CaptureStderr();
  body();
  return ::testing::internal::GetCapturedStderr();
}

/// What `body` prints where stderr is a terminal.
std::string on_terminal(const std::function<void()>& body) {
  int terminal = -1;
  const pid_t pid = forkpty(&terminal, nullptr, nullptr, nullptr);
  if (pid == 0) {
    body();
    _exit(0);
  }
  std::string out;
  char buffer[4096];
  for (;;) {
    const ssize_t n = read(terminal, buffer, sizeof buffer);
    if (n <= 0) break;  // the child has ended
    out.append(buffer, static_cast<size_t>(n));
  }
  close(terminal);
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  return out;
}

/// Longer than the time between two lines on a terminal.
void wait_a_little() { std::this_thread::sleep_for(std::chrono::milliseconds(120)); }

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

TEST(Progress, HasNoTimeLeftWhenMoreWasDoneThanWasToDo) {
  EXPECT_THAT(on_terminal([] {
                Progress p("rows", 100, "rows");
                wait_a_little();
                p.update(300);
                p.finish();
              }),
              HasSubstr("/s, 0.0s left"));
}

TEST(Progress, TakesTheTimeLeftFromWhoKnowsBetter) {
  EXPECT_THAT(on_terminal([] {
                Progress p("train", 100, "tokens");
                wait_a_little();
                p.update(60, "loss 2", 187.0);
                p.finish();
              }),
              HasSubstr(", 3m07s left, loss 2"));
}

TEST(Progress, OnATerminalRewritesOneLineWithRateAndTimeLeft) {
  const std::string out = on_terminal([] {
    Progress p("rows", 2000, "rows");
    wait_a_little();
    p.update(500, "loss 2.5");
    wait_a_little();
    p.update(1000);
    p.finish();
  });
  const std::string line = "\r\x1B\\[Krows: ";
  EXPECT_THAT(out, MatchesRegex(line + "500/2,000 rows \\(25%\\), [0-9,]+/s, [0-9.]+s left, loss 2.5" +  //
                                line + "1,000/2,000 rows \\(50%\\), [0-9,]+/s, [0-9.]+s left" +          //
                                line + "1,000/2,000 rows \\(50%\\), [0-9,]+/s, took [0-9.]+s\r\n"));
}

TEST(Progress, OnATerminalLeavesTheLineToAMessage) {
  const std::string out = on_terminal([] {
    Progress p("rows", 2000, "rows");
    wait_a_little();
    p.update(500);
    log_warning("odd");
    log_info("even");
  });
  EXPECT_THAT(out, MatchesRegex("\r\x1B\\[Krows: 500/.* left\r\x1B\\[Kwarning: odd\r\neven\r\n"));
}

TEST(Progress, OnATerminalEndsItsLineWhenTheWorkFails) {
  EXPECT_THAT(on_terminal([] {
                Progress p("rows", 2000, "rows");
                wait_a_little();
                p.update(500);
              }),
              MatchesRegex("\r\x1B\\[Krows: 500/.* left\r\n"));
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
