// Line charts as SVG, and a page of them: HTML that needs no other file. Bar charts as an SVG file.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/common/spread.h"

namespace crumb {

struct Curve {
  std::string name, color;                        // color: as in CSS
  std::vector<std::pair<double, double>> points;  // by ascending x
};

/// The mean of each run of points, so that a long log stays a small page: at most `most` of them.
Curve thinned(const Curve& curve, size_t most);

/// A title with a legend (each curve's name and last value) and the SVG; empty if no curve has a point.
std::string line_chart(const std::string& title, const std::vector<Curve>& curves);

/// A whole page; `body` is HTML, such as charts one after the other.
std::string chart_page(const std::string& title, const std::string& body);

/// Bars side by side: one of each series in each group.
struct BarChart {
  std::string title;
  std::vector<std::string> groups;
  std::vector<std::vector<std::optional<Spread>>> bars;  // [series][group]; empty: nothing stands there
};

/// An SVG file: charts one below the other under one legend of the series. A bar is as high as the median, a thin line
/// on it goes from the least to the most.
std::string bar_charts(const std::vector<std::string>& series, const std::vector<BarChart>& charts);

}  // namespace crumb
