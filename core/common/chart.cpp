#include "core/common/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "core/common/html.h"

namespace crumb {
namespace {

constexpr double kWidth = 860, kHeight = 240, kLeft = 70, kBottom = 30, kTop = 12, kRight = 12;

/// The values of an axis.
struct Range {
  double low = INFINITY, high = -INFINITY;
  bool is_logarithmic = false;

  void add(double x) { low = std::min(low, x), high = std::max(high, x); }
  void set(Scale scale) {
    is_logarithmic = low > 0 && (scale == Scale::logarithmic || (scale == Scale::automatic && high >= 100 * low));
  }
  double place(double x) const { return is_logarithmic ? std::log(x) : x; }
  double share(double x) const { return high > low ? (place(x) - place(low)) / (place(high) - place(low)) : 0.5; }
  std::vector<double> ticks() const { return round_ticks(low, high, is_logarithmic); }
};

double to_x(const Range& range, double step) { return kLeft + range.share(step) * (kWidth - kLeft - kRight); }
double to_y(const Range& range, double value) {
  return kHeight - kBottom - range.share(value) * (kHeight - kBottom - kTop);
}

/// Lines and numbers of the values, in colours of their own: an SVG file has no style sheet.
std::string value_axis(const Range& values) {
  std::string out;
  for (const double value : values.ticks()) {
    const double y = to_y(values, value);
    out += fmt::format(
        "<line x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}' stroke='#ddd'/>"
        "<text x='{}' y='{:.1f}' text-anchor='end'>{:.6g}</text>\n",
        kLeft, kWidth - kRight, y, y, kLeft - 6, y + 4, value);
  }
  return out;
}

std::string axes(const Range& steps, const Range& values) {
  std::string out = value_axis(values);
  for (const double step : steps.ticks())
    out += fmt::format("<text x='{:.1f}' y='{}' class='x'>{:.9g}</text>\n", to_x(steps, step), kHeight - 14, step);
  return out;
}

std::string x_title_text(const std::string& title) {
  if (title.empty()) return "";
  return fmt::format("<text x='{}' y='{}' class='y'>{}</text>\n", kWidth - kRight, kHeight - 1, html_escaped(title));
}

std::string polyline(const Curve& curve, const Range& steps, const Range& values) {
  std::string points;
  for (const auto& [step, value] : curve.points)
    points += fmt::format("{:.1f},{:.1f} ", to_x(steps, step), to_y(values, value));
  return fmt::format("<polyline points='{}' stroke='{}'/>\n", points, curve.color);
}

/// `svg`: what is drawn on an area of kWidth x `height`.
std::string figure(const std::string& caption, double height, const std::string& svg) {
  return fmt::format(
      "<figure><figcaption>{}</figcaption>\n<div class='wide'><svg viewBox='0 0 {} {}'>\n{}</svg></div></figure>\n",
      caption, kWidth, height, svg);
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
                       kHeight - 8, html_escaped(chart.groups[group]));
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

std::vector<double> round_ticks(double low, double high, bool is_logarithmic) {
  std::vector<double> ticks;
  if (!(high > low)) return {low};
  if (is_logarithmic) {
    const double decades = std::log10(high / low);
    const double most = 6, every = std::ceil(decades / most);
    for (double power = std::floor(std::log10(low)); power <= std::log10(high); power += every) {
      for (const double digit : {1.0, 2.0, 5.0}) {
        const double value = digit * std::pow(10.0, power);
        if ((digit == 1 || decades < 2) && value >= low && value <= high) ticks.push_back(value);
      }
    }
    if (ticks.size() > 1) return ticks;
    ticks.clear();  // less than an octave or so: even ticks are as good
  }
  const double rough = (high - low) / 5, power = std::pow(10.0, std::floor(std::log10(rough)));
  const double digit = rough / power;
  const double step = power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
  // Multiples, not sums: 0.1 + 0.1 + 0.1 is not 0.3. A value at an end of the axis is on it whatever its last bits.
  const double slack = 1e-9;
  for (double i = std::ceil(low / step - slack); i <= high / step + slack; ++i) ticks.push_back(i * step);
  return ticks;
}

std::string line_chart(const std::string& title, const std::vector<Curve>& curves, const LineChartOptions& options) {
  Range steps, values;
  std::string legend, lines;
  for (const auto& curve : curves) {
    for (const auto& [step, value] : curve.points) steps.add(step), values.add(value);
  }
  steps.set(options.x);
  values.set(options.y);
  for (const auto& curve : curves) {
    if (curve.points.empty()) continue;
    lines += polyline(curve, steps, values);
    legend += fmt::format(" <span style='color:{}'>&#9632; {} ({:.5g})</span>", curve.color, html_escaped(curve.name),
                          curve.points.back().second);
  }
  if (lines.empty()) return "";
  return figure(fmt::format("{}<small>{}</small>", html_escaped(title), legend), kHeight,
                axes(steps, values) + x_title_text(options.x_title) + lines);
}

std::string scatter_chart(const std::string& title, const std::string& x_title, const std::vector<ScatterPoint>& points,
                          Scale y_scale) {
  if (points.empty()) return "";
  Range x, y;
  for (const auto& point : points) {
    x.add(point.x);
    y.add(point.y - point.error), y.add(point.y + point.error);
  }
  x.set(Scale::automatic);
  y.set(y_scale);
  // Room for the numbers beside the points.
  if (!x.is_logarithmic) x.add(x.low - 0.05 * (x.high - x.low)), x.add(x.high + 0.05 * (x.high - x.low));
  Curve joined{"", "#999", {}};
  std::string marks, names;
  for (size_t i = 0; i < points.size(); ++i) {
    const auto& point = points[i];
    const double px = to_x(x, point.x), py = to_y(y, point.y);
    if (point.is_marked) joined.points.emplace_back(point.x, point.y);
    marks += fmt::format(
        "<line x1='{0:.1f}' x2='{0:.1f}' y1='{1:.1f}' y2='{2:.1f}' stroke='#222'/><circle cx='{0:.1f}' cy='{3:.1f}' "
        "r='5' "
        "fill='{4}' stroke='#4477aa'><title>{5}</title></circle><text x='{6:.1f}' y='{7:.1f}' "
        "style='font-weight:bold'>{8}</text>\n",
        px, to_y(y, point.y - point.error), to_y(y, point.y + point.error), py, point.is_marked ? "#4477aa" : "#fff",
        html_escaped(point.name), px + 8, py + (py > kHeight / 2 ? -6 : 14), i + 1);
    names += fmt::format("<li>{}</li>", html_escaped(point.name));
  }
  std::ranges::sort(joined.points);
  return figure(html_escaped(title), kHeight, axes(x, y) + x_title_text(x_title) + polyline(joined, x, y) + marks) +
         "<ol class='note'>" + names + "</ol>\n";
}

std::string heat_chart(const HeatChart& chart) {
  Range values;
  for (const auto& row : chart.values) {
    for (const auto& value : row) {
      if (value.value_or(0) > 0) values.add(*value);
    }
  }
  if (!(values.high > 0)) return "";
  values.is_logarithmic = true;
  constexpr double kRow = 22, kNames = 90, kHead = 16;
  const double width = (kWidth - kNames - kRight) / static_cast<double>(chart.columns.size());
  std::string out;
  for (size_t row = 0; row < chart.rows.size(); ++row) {
    const double y = kHead + kRow * static_cast<double>(row);
    out +=
        fmt::format("<text x='{}' y='{:.1f}' class='y'>{}</text>\n", kNames - 6, y + 15, html_escaped(chart.rows[row]));
    for (size_t column = 0; column < chart.columns.size(); ++column) {
      const double value = chart.values[row][column].value_or(0), share = value > 0 ? values.share(value) : 0;
      out += fmt::format(
          "<rect x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{}' fill='{}' stroke='#ddd'><title>{} {}: "
          "{}</title></rect>\n",
          kNames + width * static_cast<double>(column), y, width, kRow - 2,
          value > 0 ? fmt::format("hsl({:.0f} 85% {:.0f}%)", 55 - 55 * share, 94 - 52 * share) : "#fff",
          html_escaped(chart.rows[row]), html_escaped(chart.columns[column]),
          value > 0 ? fmt::format("{:.4g}", value) : "-");
    }
  }
  const size_t every = std::max<size_t>(1, (chart.columns.size() + 29) / 30);
  for (size_t column = 0; column < chart.columns.size(); column += every)
    out += fmt::format("<text x='{:.1f}' y='11' class='x'>{}</text>\n",
                       kNames + width * (static_cast<double>(column) + 0.5), html_escaped(chart.columns[column]));
  return figure(fmt::format("{}<small>from {:.3g} (light) to {:.3g} (dark red), by their logarithms</small>",
                            html_escaped(chart.title), values.low, values.high),
                kHead + kRow * static_cast<double>(chart.rows.size()) + 4, out);
}

std::string bar_charts(const std::vector<std::string>& series, const std::vector<BarChart>& charts) {
  std::string body;
  double y = kTop;
  for (size_t i = 0; i < series.size(); ++i, y += kLegendHeight)
    body += fmt::format("<rect x='{}' y='{:.1f}' width='10' height='10' fill='{}'/><text x='{}' y='{:.1f}'>{}</text>\n",
                        kLeft, y, bar_color(i), kLeft + 16, y + 9, html_escaped(series[i]));
  for (const auto& chart : charts) {
    if (chart.groups.empty()) continue;
    body += fmt::format(
        "<text x='{}' y='{:.1f}' font-weight='bold'>{}</text>\n<g transform='translate(0 {:.1f})'>\n{}</g>\n", kLeft,
        y + kTitleHeight - 8, html_escaped(chart.title), y + kTitleHeight, bars_of(chart));
    y += kTitleHeight + kHeight;
  }
  return fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {} {:.0f}' font-family='sans-serif' font-size='12'>\n"
      "<rect width='100%' height='100%' fill='white'/>\n{}</svg>\n",
      kWidth, y + kTop, body);
}

}  // namespace crumb
