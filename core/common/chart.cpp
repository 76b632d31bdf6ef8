#include "core/common/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace crumb {
namespace {

constexpr double kWidth = 860, kHeight = 240, kLeft = 70, kBottom = 30, kTop = 12, kRight = 12;

struct Range {
  double low = INFINITY, high = -INFINITY;
  void add(double x) { low = std::min(low, x), high = std::max(high, x); }
  double share(double x) const { return high > low ? (x - low) / (high - low) : 0.5; }
};

double to_x(const Range& range, double step) { return kLeft + range.share(step) * (kWidth - kLeft - kRight); }
double to_y(const Range& range, double value) {
  return kHeight - kBottom - range.share(value) * (kHeight - kBottom - kTop);
}

std::string axes(const Range& steps, const Range& values) {
  std::string out;
  for (int i = 0; i <= 4; ++i) {
    const double value = values.low + (values.high - values.low) * i / 4.0, y = to_y(values, value);
    out += fmt::format(
        "<line x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}' class='grid'/><text x='{}' y='{:.1f}' class='y'>{:.4g}</text>\n",
        kLeft, kWidth - kRight, y, y, kLeft - 6, y + 4, value);
  }
  for (int i = 0; i <= 4; ++i) {
    const double step = steps.low + (steps.high - steps.low) * i / 4.0;
    out += fmt::format("<text x='{:.1f}' y='{}' class='x'>{:.0f}</text>\n", to_x(steps, step), kHeight - 8, step);
  }
  return out;
}

std::string polyline(const Curve& curve, const Range& steps, const Range& values) {
  std::string points;
  for (const auto& [step, value] : curve.points)
    points += fmt::format("{:.1f},{:.1f} ", to_x(steps, step), to_y(values, value));
  return fmt::format("<polyline points='{}' stroke='{}'/>\n", points, curve.color);
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

}  // namespace

Curve thinned(const Curve& curve, size_t most) {
  const size_t run = std::max<size_t>(1, (curve.points.size() + most - 1) / most);
  Curve out{curve.name, curve.color, {}};
  for (size_t begin = 0; begin < curve.points.size(); begin += run) {
    const size_t end = std::min(begin + run, curve.points.size());
    double sum = 0;
    for (size_t i = begin; i < end; ++i) sum += curve.points[i].second;
    out.points.emplace_back(curve.points[end - 1].first, sum / static_cast<double>(end - begin));
  }
  return out;
}

std::string line_chart(const std::string& title, const std::vector<Curve>& curves) {
  Range steps, values;
  std::string legend, lines;
  for (const auto& curve : curves) {
    for (const auto& [step, value] : curve.points) steps.add(step), values.add(value);
  }
  for (const auto& curve : curves) {
    if (curve.points.empty()) continue;
    lines += polyline(curve, steps, values);
    legend += fmt::format(" <span style='color:{}'>&#9632; {} ({:.5g})</span>", curve.color, escaped(curve.name),
                          curve.points.back().second);
  }
  if (lines.empty()) return "";
  return fmt::format("<h2>{}<small>{}</small></h2>\n<svg viewBox='0 0 {} {}'>\n{}{}</svg>\n", escaped(title), legend,
                     kWidth, kHeight, axes(steps, values), lines);
}

std::string chart_page(const std::string& title, const std::string& body) {
  return fmt::format(
      "<!doctype html>\n<html><head><meta charset='utf-8'><title>{0}</title><style>\nbody{{font:15px "
      "sans-serif;max-width:900px;margin:2em auto;"
      "color:#222}}\nh2{{font-size:1em;margin:1.5em 0 0}} "
      "small{{font-weight:normal;margin-left:1em}}\nsvg{{width:100%}} polyline{{fill:none;"
      "stroke-width:1.5}}\n.grid{{stroke:#ddd}} text{{font-size:11px;fill:#666}} .y{{text-anchor:end}} "
      ".x{{text-anchor:middle}}\n</style></head>"
      "<body>\n<h1>{0}</h1>\n{1}</body></html>\n",
      escaped(title), body);
}

}  // namespace crumb
