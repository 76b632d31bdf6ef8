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

TEST(BarCharts, AreAWholeFileWithABarAndItsSpreadEach) {
  const std::string svg =
      bar_charts({"a < b", "c\n"},
                 {{"speed", {"8", "64"}, {{Spread{2, 1, 4}, std::nullopt}, {Spread{4, 4, 4}, Spread{1, 1, 1}}}}});
  EXPECT_THAT(svg, AllOf(::testing::StartsWith("<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 860 "),
                         ::testing::EndsWith("</svg>\n")));
  EXPECT_THAT(svg, AllOf(HasSubstr(">a &lt; b</text>"), HasSubstr(">c\\n</text>"), HasSubstr(">speed</text>")));
  // Of 778 wide and 198 high, up to 4: half of the height, the line from 1 to 4.
  EXPECT_THAT(svg, HasSubstr("<rect x='108.9' y='111.0' width='155.6' height='99.0' fill='#4477aa'/><line x1='186.7' "
                             "x2='186.7' y1='160.5' y2='12.0'"));
  size_t bars = 0;
  for (size_t at = svg.find("<line x1='1"); at != std::string::npos; at = svg.find("stroke='#222'", at + 1)) ++bars;
  EXPECT_EQ(bars - 1, 3u) << "one of the four is not there";
}

}  // namespace
}  // namespace crumb
