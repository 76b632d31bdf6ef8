#include "quant/linear_formats.h"

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

/// Whether zero_point is float. UserError unless it goes with symmetric. `key`: of the section.
bool is_float_zero_point(const std::optional<std::string>& zero_point, bool symmetric, const std::string& key) {
  if (!zero_point) return false;
  CRUMB_CHECK((*zero_point == "none") == symmetric, "{}.zero_point: {} needs symmetric: {}, and {}.symmetric is {}",
              key, *zero_point, !symmetric, key, symmetric);
  return *zero_point == "float";
}

/// A format and the key that says it: "method", or "method.overrides.PATTERN".
struct Chosen {
  QuantFormat format;
  std::string key;
};

Chosen usual_format(const LinearFormats& formats) {
  return {{.grid = grid_from_name(formats.grid, "method.grid"),
           .bits = static_cast<int>(formats.bits),
           .symmetric = formats.symmetric,
           .group_size = formats.group_size,
           .has_minima = is_float_zero_point(formats.zero_point, formats.symmetric, "method")},
          "method"};
}

Chosen changed(const Chosen& usual, const FormatOverride& changes, const std::string& key) {
  const QuantFormat& format = usual.format;
  const bool follows = changes.zero_point ? *changes.zero_point == "none" : format.symmetric;
  const bool symmetric = changes.symmetric.value_or(follows);
  const bool has_minima =
      changes.zero_point ? is_float_zero_point(changes.zero_point, symmetric, key) : format.has_minima && !symmetric;
  return {{.grid = changes.grid ? grid_from_name(*changes.grid, key + ".grid") : format.grid,
           .bits = static_cast<int>(changes.bits.value_or(format.bits)),
           .symmetric = symmetric,
           .group_size = changes.group_size.value_or(format.group_size),
           .has_minima = has_minima},
          key};
}

Chosen overridden(const Chosen& usual, const std::string& pattern, const FormatOverride& changes) {
  return changed(usual, changes, "method.overrides." + pattern);
}

/// All that linears may get: that of the section, then those of its overrides in their order, then the candidates.
std::vector<Chosen> all_choices(const LinearFormats& formats) {
  std::vector<Chosen> out = {usual_format(formats)};
  for (const auto& [pattern, changes] : formats.overrides) out.push_back(overridden(out[0], pattern, changes));
  for (const auto& [key, changes] : formats.candidates) out.push_back(changed(out[0], changes, key));
  return out;
}

std::optional<Chosen> choose(const LinearFormats& formats, const std::string& module_name) {
  if (matches_any(module_name, formats.exclude)) return std::nullopt;
  Chosen chosen = usual_format(formats);
  for (const auto& [pattern, changes] : formats.overrides) {
    if (matches(module_name, pattern)) chosen = overridden(usual_format(formats), pattern, changes);
  }
  return chosen;
}

}  // namespace

namespace format_help {

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

}  // namespace format_help

bool matches_any(const std::string& module_name, const std::vector<std::string>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches(module_name, pattern); });
}

QuantFormat LinearFormats::format() const { return usual_format(*this).format; }

QuantFormat LinearFormats::format(const FormatOverride& changes, const std::string& key) const {
  return changed(usual_format(*this), changes, key).format;
}

bool LinearFormats::is_overridden(const std::string& module_name) const {
  return std::ranges::any_of(overrides, [&](const auto& entry) { return matches(module_name, entry.first); });
}

std::optional<QuantFormat> LinearFormats::format_of(const std::string& module_name) const {
  const auto chosen = choose(*this, module_name);
  return chosen ? std::optional(chosen->format) : std::nullopt;
}

std::map<std::string, QuantFormat> LinearFormats::formats_of(const arch::DecoderSpec& spec) const {
  std::map<std::string, QuantFormat> out;
  for (const auto& desc : arch::tensor_table(spec)) {
    if (desc.role != arch::TensorRole::linear) continue;
    const auto chosen = choose(*this, desc.module_name());
    if (!chosen) continue;
    check_group_size(chosen->format.group_size, desc.cols(), desc.module_name(), chosen->key);
    out.emplace(desc.hf_name, chosen->format);
  }
  return out;
}

void LinearFormats::check(ScaleInit init) const {
  for (const auto& [format, key] : all_choices(*this)) check_method(format, init, key);
}

void LinearFormats::check_symmetric(const std::string& why) const {
  for (const auto& [format, key] : all_choices(*this)) CRUMB_CHECK(format.symmetric, "{}.symmetric: {}", key, why);
}

void LinearFormats::check_no_minima(const std::string& why) const {
  for (const auto& [format, key] : all_choices(*this)) CRUMB_CHECK(!format.has_minima, "{}.zero_point: {}", key, why);
}

std::vector<std::pair<Grid, std::string>> LinearFormats::grids() const {
  std::vector<std::pair<Grid, std::string>> out;
  for (const auto& [format, key] : all_choices(*this)) out.emplace_back(format.grid, key + ".grid");
  return out;
}

void LinearFormats::warn_unmatched(const arch::DecoderSpec& spec) const {
  const auto usual = LinearFormats().exclude;  // a model with a tied head has no lm_head
  const auto tensors = arch::tensor_table(spec);
  for (const auto& pattern : exclude) {
    const bool matches_one = std::ranges::any_of(
        tensors, [&](const arch::TensorDesc& desc) { return matches(desc.module_name(), pattern); });
    if (!matches_one && std::ranges::find(usual, pattern) == usual.end())
      log_warning("method.exclude: \"{}\" matches no tensor of the model", pattern);
  }
  for (const auto& entry : overrides) {
    const std::string& pattern = entry.first;
    const bool matches_one = std::ranges::any_of(tensors, [&](const arch::TensorDesc& desc) {
      const std::string name = desc.module_name();
      return desc.role == arch::TensorRole::linear && matches(name, pattern) && !matches_any(name, exclude);
    });
    if (!matches_one) log_warning("method.overrides: \"{}\" matches no linear that is quantized", pattern);
  }
}

void check_group_size(int64_t group_size, int64_t cols, const std::string& module_name, const std::string& key) {
  CRUMB_CHECK(group_size == 0 || cols % group_size == 0, "{}.group_size: {} does not divide {}, the input size of {}",
              key, group_size, cols, module_name);
}

}  // namespace crumb::quant
