#include "core/formats/row_codes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "core/common/error.h"
#include "core/formats/block_levels.h"

namespace crumb::formats {
namespace {

constexpr uint8_t kNoCode = 0xff;
constexpr int64_t kMostBlock = 512;  // weights

/// The code of each integer a block multiplies its scale with.
using CodeOfInteger = std::array<uint8_t, 256>;

CodeOfInteger code_table(std::span<const float> levels, const BlockForm& form, int factor) {
  CodeOfInteger table;
  table.fill(kNoCode);
  for (size_t code = 0; code < levels.size(); ++code) {  // a minimum is the first of the levels
    const float integer = form.has_minima ? levels[code] - levels.front() : levels[code] * static_cast<float>(factor);
    table[static_cast<uint8_t>(static_cast<int8_t>(integer))] = static_cast<uint8_t>(code);
  }
  return table;
}

/// The scale of the levels in a block, all of whose groups have to be those levels; nothing if they are not.
std::optional<float> scale_of(std::span<const LevelGroup> groups, const BlockForm& form, std::span<const float> levels,
                              int factor) {
  const float d = groups.front().scale, minimum = groups.front().minimum;
  const auto same = [&](const LevelGroup& group) { return group.scale == d && group.minimum == minimum; };
  const float scale = form.has_minima ? d : static_cast<float>(factor) * d;
  if (!(d > 0) || !std::isfinite(scale) || !std::ranges::all_of(groups, same)) return std::nullopt;
  if (form.has_minima && minimum != levels.front() * scale) return std::nullopt;
  return scale;
}

}  // namespace

bool decode_codes_row(TensorType type, const void* data, int64_t cols, std::span<const float> levels, uint8_t* codes,
                      float* scales) {
  const auto factor = level_factor(type, levels);
  CRUMB_ASSERT(factor && cols % block_size(type) == 0);
  const BlockForm& form = *block_form(type);
  const CodeOfInteger table = code_table(levels, form, *factor);
  const auto* bytes = static_cast<const uint8_t*>(data);
  const int64_t size = block_size(type);
  std::array<int8_t, kMostBlock> integers;
  std::array<LevelGroup, kMostBlock / 16> groups;
  for (int64_t at = 0; at < cols; at += size, bytes += block_bytes(type)) {
    decode_levels(type, bytes, size, integers.data(), groups.data());
    const auto scale = scale_of({groups.data(), static_cast<size_t>(size / form.group_cols)}, form, levels, *factor);
    if (!scale) return false;
    *scales++ = *scale;
    uint8_t worst = 0;
    for (int64_t i = 0; i < size; ++i) {
      codes[at + i] = table[static_cast<uint8_t>(integers[static_cast<size_t>(i)])];
      worst = std::max(worst, codes[at + i]);
    }
    if (worst == kNoCode) return false;
  }
  return true;
}

}  // namespace crumb::formats
