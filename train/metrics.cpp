#include "train/metrics.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <sstream>

#include "core/common/error.h"
#include "core/common/log.h"

namespace crumb::train {
namespace {

struct Curve {
  std::string name, color;
  std::vector<std::pair<double, double>> points;
};

constexpr double kWidth = 860, kHeight = 240, kLeft = 70, kBottom = 30, kTop = 12, kRight = 12;

/// Calls `line` for the text and the object of each line that is whole.
void for_each_line(const Path& path, const std::function<void(const std::string&, const nlohmann::json&)>& line) {
  std::istringstream text(read_text(path));
  int64_t number = 0;
  for (std::string row; std::getline(text, row);) {
    ++number;
    try {
      const auto object = parse_json(row, path.string(), {.first_line = number});
      CRUMB_CHECK(object.is_object(), "{}:{}: not a JSON object", path.string(), number);
      line(row, object);
    } catch (const UserError& e) {
      if (!text.eof()) log_warning("{}; the line is left out", e.what());
    }
  }
}

void keep_lines_up_to(const Path& path, int64_t last_step) {
  std::string kept;
  for_each_line(path, [&](const std::string& text, const nlohmann::json& line) {
    if (JsonObject(line, path.string()).get<int64_t>("step", -1) <= last_step) kept += text + "\n";
  });
  write_text(path, kept);
}

Curve curve_of(const std::vector<nlohmann::json>& log, const std::string& key, const std::string& name,
               const std::string& color) {
  Curve curve{name, color, {}};
  for (const auto& line : log) {
    const JsonObject values(line, "log.jsonl");
    if (values.has(key.c_str()))
      curve.points.emplace_back(values.get<double>("step", 0.0), values.get<double>(key.c_str()));
  }
  return curve;
}

/// The mean of each run of points, so that a long log stays a small page.
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

std::string chart(const std::string& title, const std::vector<Curve>& curves) {
  Range steps, values;
  std::string legend, lines;
  for (const auto& curve : curves) {
    for (const auto& [step, value] : curve.points) steps.add(step), values.add(value);
  }
  for (const auto& curve : curves) {
    if (curve.points.empty()) continue;
    lines += polyline(curve, steps, values);
    legend += fmt::format(" <span style='color:{}'>&#9632; {} ({:.5g})</span>", curve.color, curve.name,
                          curve.points.back().second);
  }
  if (lines.empty()) return "";
  return fmt::format("<h2>{}<small>{}</small></h2>\n<svg viewBox='0 0 {} {}'>\n{}{}</svg>\n", title, legend, kWidth,
                     kHeight, axes(steps, values), lines);
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

}  // namespace

MetricsLog::MetricsLog(const Path& path, int64_t last_step) : path_(path) {
  if (is_there(path)) keep_lines_up_to(path, last_step);
  file_ = std::fopen(path.c_str(), "ab");
  if (file_ == nullptr) user_error("cannot write {}: {}", path.string(), system_error_text(errno));
}

MetricsLog::~MetricsLog() { std::fclose(file_); }

void MetricsLog::append(const Json& line) {
  const std::string text = dump_json(line) + "\n";
  const bool is_written = std::fwrite(text.data(), 1, text.size(), file_) == text.size() && std::fflush(file_) == 0;
  if (!is_written) run_error("cannot write {}: {}", path_.string(), system_error_text(errno));
}

void MetricsLog::sync() {
  if (fsync(fileno(file_)) != 0) run_error("cannot sync {}: {}", path_.string(), system_error_text(errno));
}

std::vector<nlohmann::json> read_log(const Path& path) {
  std::vector<nlohmann::json> lines;
  for_each_line(path, [&](const std::string& /*text*/, const nlohmann::json& line) { lines.push_back(line); });
  return lines;
}

std::string curves_page(const std::vector<nlohmann::json>& log, const std::string& title) {
  const auto curve = [&](const char* key, const char* name, const char* color) {
    return thinned(curve_of(log, key, name, color), 400);
  };
  std::string body = chart("Loss", {curve("loss", "training loss", "#3b6fb6")});
  body += chart("Divergence from the teacher, nats a token",
                {curve("kl", "training", "#9db7dd"), curve("valid_kl", "validation", "#b63b3b")});
  body += chart("Cross-entropy, nats a token", {curve("valid_cross_entropy", "validation", "#b63b3b")});
  body += chart("Same first choice as the teacher", {curve("valid_top1", "validation", "#3b8f4e")});
  body += chart("Learning rate", {curve("lr", "weights", "#3b6fb6")});
  body += chart("Gradient norm", {curve("gradient_norm", "before clipping", "#7a5ba6")});
  body += chart("Codes that differ from the start", {curve("flipped_share", "share", "#b6803b")});
  body += chart("Distance from the start", {curve("weight_distance", "weights, relative", "#b6803b"),
                                            curve("scale_distance", "logarithms of the scales", "#3b6fb6")});
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

}  // namespace crumb::train
