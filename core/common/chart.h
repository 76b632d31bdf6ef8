// Charts as SVG: figures for a page of HTML (html.h), and bars as a file of their own.
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

/// How an axis is divided. `automatic`: by logarithms where all values are above 0 and the largest is 100 times the
/// smallest, else evenly.
enum class Scale { even, logarithmic, automatic };

/// Round values from low to high, about five of them: multiples of 1, 2 or 5 times a power of ten; of a logarithmic
/// axis powers of ten, and 2 and 5 times those where there is room.
std::vector<double> round_ticks(double low, double high, bool is_logarithmic);

struct LineChartOptions {
  std::string x_title = {};  // below the axis
  Scale x = Scale::even, y = Scale::even;
};

/// A figure: a title with a legend (each curve's name and last value) and the SVG; empty if no curve has a point.
std::string line_chart(const std::string& title, const std::vector<Curve>& curves,
                       const LineChartOptions& options = {});

/// A point of a scatter chart with its error upwards and downwards, in units of y.
struct ScatterPoint {
  std::string name;
  double x = 0, y = 0, error = 0;
  bool is_marked = false;  // joined with the others that are, by ascending x
};

/// A figure: numbered points, and their names below. `y`, where automatic, is even if a point lies at 0. Empty without
/// points.
std::string scatter_chart(const std::string& title, const std::string& x_title, const std::vector<ScatterPoint>& points,
                          Scale y = Scale::automatic);

/// A figure: a strip of cells a row, coloured by the logarithm of their values; cells without a value or with one that
/// is not above 0 stay empty. Each cell tells its row, column and value. Empty without a value.
struct HeatChart {
  std::string title;
  std::vector<std::string> rows, columns;
  std::vector<std::vector<std::optional<double>>> values;  // [row][column]
};
std::string heat_chart(const HeatChart& chart);

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
