#include "core/common/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crumb {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(LineChart, DrawsEveryCurveInTheRangeOfAll) {
  const std::string chart =
      line_chart("a < b", {{"up", "red", {{0, 1}, {10, 3}}}, {"flat", "blue", {{0, 2}, {10, 2}}}});
  EXPECT_THAT(chart, AllOf(HasSubstr("<figcaption>a &lt; b<small>"), HasSubstr("up (3)"), HasSubstr("flat (2)")));
  // 860 x 240, with room on the left for numbers and below for steps
  EXPECT_THAT(chart, HasSubstr("<polyline points='70.0,210.0 848.0,12.0 ' stroke='red'/>"));
  EXPECT_THAT(chart, HasSubstr("<polyline points='70.0,111.0 848.0,111.0 ' stroke='blue'/>"));
}

TEST(LineChart, OfNothingIsNothing) { EXPECT_EQ(line_chart("empty", {{"none", "red", {}}}), ""); }

TEST(LineChart, MayBeLogarithmic) {
  const LineChartOptions options{.x_title = "tokens < seen", .x = Scale::logarithmic, .y = Scale::automatic};
  const std::string chart = line_chart("t", {{"c", "red", {{1, 0.01}, {10, 0.1}, {100, 1}}}}, options);
  EXPECT_THAT(chart, HasSubstr("<polyline points='70.0,210.0 459.0,111.0 848.0,12.0 ' stroke='red'/>"));
  EXPECT_THAT(chart, AllOf(HasSubstr(">0.01</text>"), HasSubstr(">0.1</text>"), HasSubstr(">tokens &lt; seen</text>")));
  // 99 times is not enough, and 0 has no logarithm.
  EXPECT_THAT(line_chart("t", {{"c", "red", {{1, 1}, {2, 50}, {3, 99}}}}, options), HasSubstr(">60</text>"));
  EXPECT_THAT(line_chart("t", {{"c", "red", {{1, 0}, {2, 500}, {3, 1000}}}}, options), HasSubstr(">600</text>"));
}

TEST(RoundTicks, AreMultiplesOfOneTwoOrFive) {
  using Ticks = std::vector<double>;
  EXPECT_THAT(round_ticks(1, 3, false), ::testing::Pointwise(::testing::DoubleEq(), Ticks{1, 1.5, 2, 2.5, 3}));
  EXPECT_THAT(round_ticks(0.13, 0.61, false),
              ::testing::Pointwise(::testing::DoubleEq(), Ticks{0.2, 0.3, 0.4, 0.5, 0.6}));
  EXPECT_THAT(round_ticks(0, 400, false), ::testing::Pointwise(::testing::DoubleEq(), Ticks{0, 100, 200, 300, 400}));
  EXPECT_THAT(round_ticks(-7, 12, false), ::testing::Pointwise(::testing::DoubleEq(), Ticks{-5, 0, 5, 10}));
  EXPECT_THAT(round_ticks(0.02, 30, true), ::testing::Pointwise(::testing::DoubleEq(), Ticks{0.1, 1, 10}));
  EXPECT_THAT(round_ticks(3, 60, true), ::testing::Pointwise(::testing::DoubleEq(), Ticks{5, 10, 20, 50}));
  EXPECT_THAT(round_ticks(1e-8, 1e4, true),
              ::testing::Pointwise(::testing::DoubleEq(), Ticks{1e-8, 1e-6, 1e-4, 1e-2, 1, 100, 1e4}));
  EXPECT_EQ(round_ticks(3, 3, false), Ticks{3});
}

TEST(ScatterChart, NumbersPointsAndJoinsTheMarked) {
  EXPECT_EQ(scatter_chart("t", "x", {}), "");
  const std::string chart =
      scatter_chart("t", "MB", {{"big <b>", 10, 1, 0, true}, {"small", 5, 2, 0.5, true}, {"bad", 9, 4, 0, false}});
  EXPECT_THAT(chart, HasSubstr("<ol class='note'><li>big &lt;b&gt;</li><li>small</li><li>bad</li></ol>"));
  // x from 4.75 to 10.2625 (with room on both sides), y from 1 to 4; the marked by ascending x.
  EXPECT_THAT(chart, HasSubstr("<polyline points='105.3,144.0 811.0,210.0 ' stroke='#999'/>"));
}

TEST(HeatChart, ColoursByLogarithm) {
  EXPECT_EQ(heat_chart({"t", {"q"}, {"0"}, {{std::nullopt}}}), "");
  const std::string chart = heat_chart({"t", {"q_proj"}, {"0", "1", "2", "3"}, {{0.01, 0.1, 1.0, std::nullopt}}});
  EXPECT_THAT(chart, HasSubstr("fill='hsl(55 85% 94%)' stroke='#ddd'><title>q_proj 0: 0.01</title>"));
  EXPECT_THAT(chart, HasSubstr("fill='hsl(28 85% 68%)' stroke='#ddd'><title>q_proj 1: 0.1</title>"));
  EXPECT_THAT(chart, HasSubstr("fill='hsl(0 85% 42%)' stroke='#ddd'><title>q_proj 2: 1</title>"));
  EXPECT_THAT(chart, HasSubstr("fill='#fff' stroke='#ddd'><title>q_proj 3: -</title>"));
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
