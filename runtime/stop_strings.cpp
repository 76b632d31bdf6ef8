#include "runtime/stop_strings.h"

#include <algorithm>
#include <utility>

#include "core/common/error.h"

namespace crumb::runtime {

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const auto& stop : stops_) CRUMB_CHECK(!stop.empty(), "--stop: a text that ends the generation cannot be empty");
}

std::string StopStrings::push(std::string_view piece) {
  if (found_) return "";
  held_ += piece;
  size_t first = held_.size();  // where a stop string begins, or may begin
  for (size_t at = 0; at < held_.size() && first == held_.size(); ++at) {
    const std::string_view rest = std::string_view(held_).substr(at);
    bool may_begin = false;
    for (const auto& stop : stops_) {
      if (rest.starts_with(stop) && (!found_ || stop.size() > found_->size())) found_ = stop;
      may_begin = may_begin || std::string_view(stop).starts_with(rest);
    }
    if (found_ || may_begin) first = at;
  }
  std::string shown = held_.substr(0, first);
  held_.erase(0, found_ ? held_.size() : first);
  return shown;
}

std::string StopStrings::finish() { return std::exchange(held_, ""); }

}  // namespace crumb::runtime
