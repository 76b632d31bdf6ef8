#include "quant/scale_search.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/common/error.h"
#include "core/common/log.h"
#include "kernels/seq.h"

namespace crumb::quant {

float max_abs(const float* w, int64_t n) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::fabs(w[i]));
  return most;
}

double mean_abs(const float* w, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::fabs(w[i]);
  return sum / static_cast<double>(n);
}

int64_t count_clamped(const float* w, const float* scales, int64_t rows, int64_t cols, const QuantFormat& format) {
  const int64_t group_cols = format.group_cols(cols);
  const auto is_varied = [&](const float* of_group) {
    if (!format.has_minima) return max_abs(of_group, group_cols) > 0;
    return std::any_of(of_group, of_group + group_cols, [&](float x) { return x != *of_group; });
  };
  const float most_minimum = round_minimum(std::numeric_limits<float>::max());
  int64_t count = 0;
  for (int64_t group = 0; group < rows * cols / group_cols; ++group) {
    const bool at_an_end = scales[group] <= kernels::kMinScale || scales[group] >= kernels::kMaxScale;
    const float* of_group = w + group * group_cols;
    const bool is_cut = format.has_minima && max_abs(of_group, group_cols) > most_minimum;
    count += is_cut || (at_an_end && is_varied(of_group)) ? 1 : 0;
  }
  return count;
}

void warn_about_clamped_scales(const std::vector<ClampedScales>& linears) {
  constexpr size_t kMostNames = 8;
  std::vector<std::string> names;
  for (const auto& linear : linears) {
    if (linear.clamped > 0) names.push_back(fmt::format("{} ({} of {})", linear.module, linear.clamped, linear.scales));
  }
  if (names.empty()) return;
  const size_t more = names.size() - std::min(names.size(), kMostNames);
  names.resize(names.size() - more);
  log_warning(
      "scales were clamped to the range 2^-17 to 2^14 (minima to +-65504), and the weights they stand for are badly "
      "rounded: {}{}",
      fmt::join(names, ", "), more > 0 ? fmt::format(" and {} more", more) : "");
}

QuantizedTensor find_scales(const float* w, int64_t rows, int64_t cols, const QuantFormat& format, ScaleInit init,
                            const float* importance) {
  const int64_t group_cols = format.group_cols(cols), groups = format.groups(cols);
  CRUMB_ASSERT(group_cols > 0 && cols % group_cols == 0);
  check_method(format, init);
  QuantizedTensor out{.format = format, .rows = rows, .cols = cols, .codes = {}, .scales = {}, .zero_points = {}};
  out.resize_groups();
  for (int64_t i = 0; i < rows * groups; ++i) {
    const float* of_group = importance == nullptr ? nullptr : importance + i % groups * group_cols;
    out.set_group(static_cast<size_t>(i),
                  format.grid->find_scale(w + i * group_cols, group_cols, format, init, of_group));
  }
  return out;
}

void set_nearest_codes(const float* w, QuantizedTensor& tensor) {
  const int64_t group_cols = tensor.format.group_cols(tensor.cols);
  tensor.codes.resize(static_cast<size_t>(tensor.rows * tensor.cols));
  for (size_t i = 0; i < tensor.scales.size(); ++i) {
    const int64_t begin = static_cast<int64_t>(i) * group_cols;
    tensor.format.grid->nearest_codes(w + begin, group_cols, tensor.format, tensor.group(i),
                                      tensor.codes.data() + begin);
  }
}

QuantizedTensor round_to_nearest(const float* w, int64_t rows, int64_t cols, const QuantFormat& format, ScaleInit init,
                                 const float* importance) {
  QuantizedTensor out = find_scales(w, rows, cols, format, init, importance);
  set_nearest_codes(w, out);
  return out;
}

}  // namespace crumb::quant
