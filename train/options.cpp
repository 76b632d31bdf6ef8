#include "train/options.h"

#include <algorithm>
#include <cmath>

namespace crumb::train {

std::string mix_mistake(const std::vector<TextSource>& sources) {
  if (sources.empty()) return "no file given";
  double sum = 0;
  for (const auto& source : sources) sum += source.weight.value_or(0);
  const auto weighted =
      std::ranges::count_if(sources, [](const TextSource& source) { return source.weight.has_value(); });
  if (weighted == 0) return "";
  if (weighted < std::ssize(sources)) return "either every entry has a weight or none";
  if (!std::isfinite(sum)) return "the weights add up to more than a number can say";
  return sum > 0 ? "" : "the weights add up to 0";
}

}  // namespace crumb::train
