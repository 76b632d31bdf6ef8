#include "train/metrics.h"

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <sstream>

#include "core/common/chart.h"
#include "core/common/error.h"
#include "core/common/html.h"
#include "core/common/log.h"

namespace crumb::train {
namespace {

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
  const LineChartOptions steps{.x_title = "step"}, ratios{.x_title = "step", .y = Scale::automatic};
  std::string body = line_chart("Loss", {curve("loss", "training loss", "#3b6fb6")}, ratios);
  body += line_chart("Divergence from the teacher, nats a token",
                     {curve("kl", "training", "#9db7dd"), curve("valid_kl", "validation", "#b63b3b")}, ratios);
  body += line_chart("Cross-entropy, nats a token", {curve("valid_cross_entropy", "validation", "#b63b3b")}, steps);
  body += line_chart("Same first choice as the teacher", {curve("valid_top1", "validation", "#3b8f4e")}, steps);
  body += line_chart("Learning rate", {curve("lr", "weights", "#3b6fb6")}, steps);
  body += line_chart("Gradient norm", {curve("gradient_norm", "before clipping", "#7a5ba6")}, ratios);
  body += line_chart("Codes that differ from the start", {curve("flipped_share", "share", "#b6803b")}, steps);
  body += line_chart("Distance from the start",
                     {curve("weight_distance", "weights, relative", "#b6803b"),
                      curve("scale_distance", "logarithms of the scales", "#3b6fb6")},
                     steps);
  return html_page(title, body);
}

}  // namespace crumb::train
