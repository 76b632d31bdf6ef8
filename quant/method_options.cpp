#include "quant/method_options.h"

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
  const bool is_seq = grid == "seq";
  CRUMB_CHECK(!is_seq || bits == 2, "method.bits: grid seq has 2 bits, got {}; grid int has 2 to 8", bits);
  CRUMB_CHECK(!is_seq || symmetric, "method.symmetric: grid seq is symmetric; false is for grid int");
  CRUMB_CHECK(is_seq || init != "absmean", "method.init: absmean is for grid seq; grid int knows absmax and mse");
  return {.grid = is_seq ? Grid::seq : Grid::intn,
          .bits = static_cast<int>(bits),
          .symmetric = symmetric,
          .group_size = group_size};
}

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
