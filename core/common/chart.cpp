#include "core/common/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "core/common/log.h"

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

/// Control characters, which XML may not hold, are written out.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : one_line(text)) out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

constexpr const char* kBarColors[] = {"#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777"};
constexpr double kTitleHeight = 26, kLegendHeight = 18;

std::string bar_color(size_t series) { return kBarColors[series % std::size(kBarColors)]; }

/// One bar with its spread; `x`: its left side.
std::string bar(const Spread& spread, const Range& values, double x, double width, const std::string& color) {
  const double top = to_y(values, spread.median), middle = x + width / 2;
  return fmt::format(
      "<rect x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}' fill='{}'/>"
      "<line x1='{:.1f}' x2='{:.1f}' y1='{:.1f}' y2='{:.1f}' stroke='#222'/>\n",
      x, top, width, to_y(values, 0) - top, color, middle, middle, to_y(values, spread.least),
      to_y(values, spread.most));
}

std::string value_axis(const Range& values) {
  std::string out;
  for (int i = 0; i <= 4; ++i) {
    const double value = values.high * i / 4.0, y = to_y(values, value);
    out += fmt::format(
        "<line x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}' stroke='#ddd'/>"
        "<text x='{}' y='{:.1f}' text-anchor='end'>{:.4g}</text>\n",
        kLeft, kWidth - kRight, y, y, kLeft - 6, y + 4, value);
  }
  return out;
}

std::string bars_of(const BarChart& chart) {
  Range values;
  values.add(0);
  for (const auto& series : chart.bars) {
    for (const auto& spread : series) values.add(spread ? spread->most : 0);
  }
  std::string out = value_axis(values);
  const double group_width = (kWidth - kLeft - kRight) / static_cast<double>(chart.groups.size());
  const double bar_width = 0.8 * group_width / static_cast<double>(chart.bars.size());
  for (size_t group = 0; group < chart.groups.size(); ++group) {
    const double left = kLeft + group_width * (static_cast<double>(group) + 0.1);
    for (size_t series = 0; series < chart.bars.size(); ++series) {
      const auto& spread = chart.bars[series][group];
      if (spread)
        out += bar(*spread, values, left + bar_width * static_cast<double>(series), bar_width, bar_color(series));
    }
    out += fmt::format("<text x='{:.1f}' y='{}' text-anchor='middle'>{}</text>\n", left + 0.4 * group_width,
                       kHeight - 8, escaped(chart.groups[group]));
  }
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

std::string bar_charts(const std::vector<std::string>& series, const std::vector<BarChart>& charts) {
  std::string body;
  double y = kTop;
  for (size_t i = 0; i < series.size(); ++i, y += kLegendHeight)
    body += fmt::format("<rect x='{}' y='{:.1f}' width='10' height='10' fill='{}'/><text x='{}' y='{:.1f}'>{}</text>\n",
                        kLeft, y, bar_color(i), kLeft + 16, y + 9, escaped(series[i]));
  for (const auto& chart : charts) {
    if (chart.groups.empty()) continue;
    body += fmt::format(
        "<text x='{}' y='{:.1f}' font-weight='bold'>{}</text>\n<g transform='translate(0 {:.1f})'>\n{}</g>\n", kLeft,
        y + kTitleHeight - 8, escaped(chart.title), y + kTitleHeight, bars_of(chart));
    y += kTitleHeight + kHeight;
  }
  return fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {} {:.0f}' font-family='sans-serif' font-size='12'>\n"
      "<rect width='100%' height='100%' fill='white'/>\n{}</svg>\n",
      kWidth, y + kTop, body);
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
