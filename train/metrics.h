// What a run writes down: log.jsonl, one JSON object a step, and curves.html, which draws it.
#pragma once

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "core/common/json.h"

namespace crumb::train {

using Json = nlohmann::ordered_json;

/// Appends to log.jsonl. Opening it for a run that goes on after `step` drops every later line, and one that a kill cut
/// short.
class MetricsLog {
 public:
  MetricsLog(const Path& path, int64_t last_step);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void append(const Json& line);
  /// Makes what was appended survive a crash of the machine.
  void sync();

 private:
  Path path_;
  std::FILE* file_ = nullptr;
};

/// Lines of a log. A broken one is left out: with a warning, unless it is the last, which a kill cut short.
std::vector<nlohmann::json> read_log(const Path& path);

/// A page without scripts or outside files: loss, validation, learning rate, movement of codes and weights.
std::string curves_page(const std::vector<nlohmann::json>& log, const std::string& title);

}  // namespace crumb::train
