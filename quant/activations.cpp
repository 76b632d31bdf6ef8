#include "quant/activations.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/common/error.h"
#include "core/common/finite.h"
#include "core/common/json.h"
#include "quant/quantization_config.h"
#include "quant/scale_search.h"

namespace crumb::quant {
namespace {

constexpr int kLeastBits = 4;
constexpr const char* kNone = "none";

QuantFormat token_format(const ActivationFormat& format) {
  return {.grid = format.grid, .bits = format.bits, .symmetric = true, .group_size = 0};
}

}  // namespace

std::string ActivationFormat::title() const { return token_format(*this).title() + ", a scale a token"; }

std::optional<ActivationFormat> ActivationOptions::format() const {
  if (grid == kNone) return std::nullopt;
  return ActivationFormat{grid_from_name(grid, "activations.grid"), static_cast<int>(bits)};
}

ActivationRounder::ActivationRounder(const ActivationFormat& format)
    : format_(token_format(format)), levels_(format_.levels()) {}

float ActivationRounder::find_codes(const float* x, int64_t n, uint8_t* codes) const {
  // A maximum would pass over NaN, and a code could not hold it: a model that overflows must not look sound.
  if (!are_finite({x, static_cast<size_t>(n)})) return std::numeric_limits<float>::quiet_NaN();
  const GroupScale group{.scale = max_abs(x, n) / levels_.back()};
  if (!(group.scale > 0)) return 0;  // zeros, or so small that the quotient is
  format_.grid->nearest_codes(x, n, format_, group, codes);
  return group.scale;
}

void ActivationRounder::round(const float* x, int64_t tokens, int64_t cols, float* out) const {
  std::vector<uint8_t> codes(static_cast<size_t>(cols));
  for (int64_t token = 0; token < tokens; ++token, x += cols, out += cols) {
    const float scale = find_codes(x, cols, codes.data());
    if (scale > 0) {
      for (int64_t i = 0; i < cols; ++i) out[i] = levels_[codes[static_cast<size_t>(i)]] * scale;
    } else {
      std::fill_n(out, cols, scale);
    }
  }
}

std::optional<ActivationFormat> activations_of(const Checkpoint& checkpoint) {
  if (checkpoint.kind() != CheckpointKind::codes) return std::nullopt;
  return activations_in(checkpoint.hf_config(), (checkpoint.path() / "config.json").string());
}

nlohmann::json activations_json(const std::optional<ActivationFormat>& format) {
  if (!format) return kNone;
  return {{"grid", std::string(format->grid.facts().name)}, {"bits", format->bits}, {"per", "token"}};
}

std::optional<ActivationFormat> activations_from_json(const nlohmann::json& entry, const std::string& where) {
  if (entry == kNone) return std::nullopt;
  const JsonObject said(entry, where + ": activations");
  for (const auto& [key, value] : said.object().items())
    CRUMB_CHECK(key == "grid" || key == "bits" || key == "per", "{}: unknown key {}; known: bits, grid, per",
                said.where(), key);
  const auto per = said.get<std::string>("per");
  CRUMB_CHECK(per == "token", "{}: per is {}; this program knows token", said.where(), per);
  const ActivationFormat format{grid_from_name(said.get<std::string>("grid"), said.where()), said.get<int>("bits")};
  CRUMB_CHECK(format.grid == Grid::intn || format.grid == Grid::fp8, "{}: grid is {}; activations are int or fp8",
              said.where(), format.grid.facts().name);
  const bool has_bits = format.bits >= kLeastBits && format_obstacle(token_format(format)).empty();
  CRUMB_CHECK(has_bits, "{}: {} has no {} bits", said.where(), format.grid.facts().name, format.bits);
  return format;
}

}  // namespace crumb::quant
