#include "quant/method_options.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/common/error.h"
#include "core/common/log.h"

namespace crumb::quant {
namespace {

/// `*`: any characters, dots too; `?`: any one.
bool matches_glob(std::string_view text, std::string_view pattern) {
  size_t t = 0, p = 0, after_star = std::string_view::npos, star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      after_star = ++p;
      star_text = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (after_star != std::string_view::npos) {  // the star takes one more character
      p = after_star;
      t = ++star_text;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

bool has_component(std::string_view name, std::string_view component) {
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    if (name.substr(begin, end - begin) == component) return true;
    begin = end + 1;
  }
  return false;
}

bool matches(const std::string& name, const std::string& pattern) {
  if (pattern.find_first_of(".*?") == std::string::npos) return has_component(name, pattern);
  return matches_glob(name, pattern);
}

}  // namespace

QuantFormat MethodOptions::format() const {
  const QuantFormat format{.grid = grid_from_name(grid, "method.grid"),
                           .bits = static_cast<int>(bits),
                           .symmetric = symmetric,
                           .group_size = group_size};
  check_method(format, scale_init_from_name(init));
  return format;
}

namespace method_help {

const char* grids() {
  static const std::string text = [] {
    std::vector<std::string> grids;
    for (const Grid grid : known_grids())
      grids.push_back(fmt::format("{} = {}", grid.facts().name, grid.facts().values));
    return fmt::format("the levels: {}", fmt::join(grids, ", "));
  }();
  return text.c_str();
}

const char* bits() {
  static const std::string text = [] {
    std::string out = "bits a weight";
    for (const Grid grid : known_grids()) {
      const GridFacts& facts = grid.facts();
      if (facts.least_bits == facts.most_bits) out += fmt::format("; {} has {}", facts.name, facts.least_bits);
    }
    return out;
  }();
  return text.c_str();
}

FieldLimits bits_limits() {
  FieldLimits limits{.min = 8, .max = 1};
  for (const Grid grid : known_grids()) {
    limits.min = std::min<double>(*limits.min, grid.facts().least_bits);
    limits.max = std::max<double>(*limits.max, grid.facts().most_bits);
  }
  return limits;
}

}  // namespace method_help

bool matches_any(const std::string& module_name, const std::vector<std::string>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches(module_name, pattern); });
}

void warn_unmatched_excludes(const arch::DecoderSpec& spec, const MethodOptions& method) {
  const auto usual = MethodOptions().exclude;  // a model with a tied head has no lm_head
  for (const auto& pattern : method.exclude) {
    const auto tensors = arch::tensor_table(spec);
    const bool matches_one = std::any_of(tensors.begin(), tensors.end(), [&](const arch::TensorDesc& desc) {
      return matches(desc.module_name(), pattern);
    });
    if (!matches_one && std::find(usual.begin(), usual.end(), pattern) == usual.end())
      log_warning("method.exclude: \"{}\" matches no tensor of the model", pattern);
  }
}

bool is_quantized(const arch::TensorDesc& desc, const MethodOptions& method) {
  return desc.role == arch::TensorRole::linear && !matches_any(desc.module_name(), method.exclude);
}

void check_group_size(int64_t group_size, int64_t cols, const std::string& module_name) {
  CRUMB_CHECK(group_size == 0 || cols % group_size == 0,
              "method.group_size: {} does not divide {}, the input size of {}", group_size, cols, module_name);
}

}  // namespace crumb::quant
