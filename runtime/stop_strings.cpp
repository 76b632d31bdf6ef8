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
    const bool may_become_longer = std::ranges::any_of(
        stops_, [&](const auto& stop) { return stop.size() > rest.size() && stop.starts_with(rest); });
    if (!may_become_longer) found_ = longest_at(rest);
    if (found_ || may_become_longer) first = at;
  }
  std::string shown = held_.substr(0, first);
  held_.erase(0, found_ ? held_.size() : first);
  return shown;
}

std::string StopStrings::finish() {
  std::string rest = std::exchange(held_, "");
  for (size_t at = 0; at < rest.size() && !found_; ++at) {
    found_ = longest_at(std::string_view(rest).substr(at));
    if (found_) rest.resize(at);
  }
  return rest;
}

std::optional<std::string> StopStrings::longest_at(std::string_view text) const {
  std::optional<std::string> longest;
  for (const auto& stop : stops_) {
    if (text.starts_with(stop) && (!longest || stop.size() > longest->size())) longest = stop;
  }
  return longest;
}

}  // namespace crumb::runtime
