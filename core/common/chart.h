// Line charts as SVG, and a page of them: HTML that needs no other file.
#pragma once

#include <string>
#include <utility>
#include <vector>

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

}  // namespace crumb
