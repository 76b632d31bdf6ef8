#include "core/common/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crumb {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(LineChart, DrawsEveryCurveInTheRangeOfAll) {
  const std::string chart =
      line_chart("a < b", {{"up", "red", {{0, 1}, {10, 3}}}, {"flat", "blue", {{0, 2}, {10, 2}}}});
  EXPECT_THAT(chart, AllOf(HasSubstr("<h2>a &lt; b<small>"), HasSubstr("up (3)"), HasSubstr("flat (2)")));
  // 860 x 240, with room on the left for numbers and below for steps
  EXPECT_THAT(chart, HasSubstr("<polyline points='70.0,210.0 848.0,12.0 ' stroke='red'/>"));
  EXPECT_THAT(chart, HasSubstr("<polyline points='70.0,111.0 848.0,111.0 ' stroke='blue'/>"));
}

TEST(LineChart, OfNothingIsNothing) { EXPECT_EQ(line_chart("empty", {{"none", "red", {}}}), ""); }

TEST(LineChart, StandsInAPageOfItsOwn) {
  const std::string page = chart_page("a & b", line_chart("x", {{"c", "red", {{1, 1}}}}));
  EXPECT_THAT(page, AllOf(HasSubstr("<title>a &amp; b</title>"), HasSubstr("<polyline"), HasSubstr("</html>")));
  EXPECT_THAT(page, Not(HasSubstr("http")));
}

TEST(Thinned, KeepsTheMeanOfEachRun) {
  Curve curve{"c", "red", {}};
  for (int i = 1; i <= 7; ++i) curve.points.emplace_back(i, i * i);
  const Curve thin = thinned(curve, 3);
  ASSERT_EQ(thin.points.size(), 3u);  // runs of 3
  EXPECT_EQ(thin.points[0], (std::pair<double, double>(3, (1 + 4 + 9) / 3.0)));
  EXPECT_EQ(thin.points[2], (std::pair<double, double>(7, 49)));
  EXPECT_EQ(thinned(curve, 7).points, curve.points);
}

}  // namespace
}  // namespace crumb
