#include "core/text/windows.h"

#include <gtest/gtest.h>

#include <sstream>

#include "tests/testing/testing.h"

namespace crumb::text {
namespace {

TEST(Windows, AreTheOnesThatNumpysLinspacePicks) {
  std::istringstream golden(crumb::testing::read_file(crumb::testing::source_dir() / "tests/text/window_golden.txt"));
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

TEST(SpreadEvenly, PicksTheFirstOfEachEqualPart) {
  const auto parts = [](int64_t total, int64_t wanted) { return spread_evenly(total, wanted, Spread::parts); };
  // numpy 2: numpy.arange(n) * total // n
  EXPECT_EQ(parts(42, 11), (std::vector<int64_t>{0, 3, 7, 11, 15, 19, 22, 26, 30, 34, 38}));
  EXPECT_EQ(parts(1000, 8), (std::vector<int64_t>{0, 125, 250, 375, 500, 625, 750, 875}));
  EXPECT_EQ(parts(1000003, 9),
            (std::vector<int64_t>{0, 111111, 222222, 333334, 444445, 555557, 666668, 777780, 888891}));
  EXPECT_EQ(parts(5, 100), (std::vector<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(parts(7, 1), (std::vector<int64_t>{0}));
  EXPECT_TRUE(parts(0, 4).empty());
  EXPECT_TRUE(parts(4, 0).empty());
}

TEST(SpreadEvenly, PicksFromTheFirstToTheLast) {
  // numpy 2: numpy.unique(numpy.linspace(0, total - 1, n).astype(int))
  EXPECT_EQ(spread_evenly(42, 11, Spread::ends), (std::vector<int64_t>{0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 41}));
  EXPECT_TRUE(spread_evenly(0, 4, Spread::ends).empty());
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
}  // namespace crumb::text
