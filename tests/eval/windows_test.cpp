#include "eval/windows.h"

#include <gtest/gtest.h>

#include <sstream>

#include "tests/testing/testing.h"

namespace crumb::eval {
namespace {

TEST(Windows, AreTheOnesThatNumpysLinspacePicks) {
  std::istringstream golden(crumb::testing::read_file(crumb::testing::source_dir() / "tests/eval/window_golden.txt"));
  int cases = 0;
  for (std::string line; std::getline(golden, line); ++cases) {
    std::istringstream in(line);
    int64_t total = 0, wanted = 0;
    in >> total >> wanted;
    std::vector<int64_t> want, got;
    for (int64_t i = 0; in >> i;) want.push_back(i);
    for (const auto& w : plan_windows(total * 16 + 1, 16, 16, wanted)) got.push_back(w.begin / 16);
    EXPECT_EQ(got, want) << line;
  }
  EXPECT_EQ(cases, 21);
}

TEST(Windows, NeedOneTokenMoreThanTheyTakeIn) {
  EXPECT_EQ(count_windows(0, 16, 16), 0);
  EXPECT_EQ(count_windows(16, 16, 16), 0);
  EXPECT_EQ(count_windows(17, 16, 16), 1);
  EXPECT_EQ(count_windows(32, 16, 16), 1);
  EXPECT_EQ(count_windows(33, 16, 16), 2);
  EXPECT_TRUE(plan_windows(16, 16, 16, 0).empty());
  EXPECT_TRUE(plan_windows(16, 16, 16, 5).empty());
}

TEST(Windows, ScoreEveryTokenOnceWhateverTheStride) {
  constexpr int64_t kTokens = 103, kContext = 16;
  for (int64_t stride = 1; stride <= kContext; ++stride) {
    std::vector<int> scored(kTokens, 0);
    int64_t last = 0;
    for (const auto& w : plan_windows(kTokens, kContext, stride, 0)) {
      for (int64_t p = w.first_scored; p < kContext; ++p) ++scored[static_cast<size_t>(last = w.begin + p + 1)];
      EXPECT_LT(w.begin + kContext, kTokens);
    }
    EXPECT_EQ(scored[0], 0);
    for (int64_t t = 1; t <= last; ++t)
      EXPECT_EQ(scored[static_cast<size_t>(t)], 1) << "stride " << stride << ", token " << t;
    EXPECT_GT(last + stride, kTokens - 1) << "a window more would have fitted";
  }
}

TEST(Windows, OfAShortStrideScoreOnlyTheirNewTokens) {
  const std::vector<Window> want{{0, 0}, {4, 12}, {8, 12}};
  EXPECT_EQ(plan_windows(25, 16, 4, 0), want);
  const std::vector<Window> picked{{0, 0}, {8, 12}};
  EXPECT_EQ(plan_windows(25, 16, 4, 2), picked);
}

}  // namespace
}  // namespace crumb::eval
