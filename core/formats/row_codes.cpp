#include "core/formats/row_codes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>

#include "core/common/error.h"

namespace crumb::formats {
namespace {

constexpr int16_t kNoCode = -1;
constexpr int64_t kChunk = 4096;  // weights taken apart at once: what there is of them stays in the nearest cache
constexpr int64_t kLeastGroup = 16;

const BlockForm& form_of(TensorType type) {
  const BlockForm* form = block_form(type);
  CRUMB_ASSERT(form != nullptr);
  return *form;
}

/// The shift that makes numbers of evenly spaced integers, 1 or 2 apart; -1 for others.
int shift_of(std::span<const int> integers) {
  const int step = integers.size() > 1 ? integers[1] - integers[0] : 1;
  for (size_t i = 1; i < integers.size(); ++i) {
    if (integers[i] - integers[i - 1] != step) return -1;
  }
  return step == 1 ? 0 : step == 2 ? 1 : -1;
}

/// The scale of the levels in a block, all of whose groups have to be those levels, but for a minimum that `is_free`;
/// nothing if they are not.
std::optional<float> scale_of(std::span<const LevelGroup> groups, const BlockForm& form, float first_level, int factor,
                              bool is_free) {
  const float d = groups.front().scale, minimum = groups.front().minimum;
  const auto bits_of = [](const LevelGroup& group) { return std::bit_cast<uint64_t>(group); };
  const uint64_t front = bits_of(groups.front());
  uint64_t differences = 0;  // by bits first, which takes a few vectors
  for (const auto& group : groups) differences |= bits_of(group) ^ front;
  const auto same = [&](const LevelGroup& group) { return group.scale == d && group.minimum == minimum; };
  const float scale = form.has_minima ? d : static_cast<float>(factor) * d;
  if (!(d > 0) || !std::isfinite(scale)) return std::nullopt;
  if (differences != 0 && !std::ranges::all_of(groups, same)) return std::nullopt;
  if (is_free && !std::isfinite(minimum)) return std::nullopt;
  if (form.has_minima && !is_free && minimum != first_level * scale) return std::nullopt;
  return scale;
}

/// codes[i] = (integers[i] - first) >> kShift; the largest of them, or 255 if bits were shifted out.
template <int kShift>
uint8_t number_evenly(const int8_t* integers, int64_t n, uint8_t first, uint8_t* codes) {
  uint8_t worst = 0, between = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto distance = static_cast<uint8_t>(static_cast<uint8_t>(integers[i]) - first);
    const auto code = static_cast<uint8_t>(distance >> kShift);
    codes[i] = code;
    between |= distance;
    worst = std::max(worst, code);
  }
  return (between & kShift) == 0 ? worst : 255;
}

}  // namespace

RowCodes::RowCodes(TensorType type, std::span<const float> levels)
    : type_(type), form_(form_of(type)), levels_(levels.begin(), levels.end()) {
  const auto factor = level_factor(type, levels);
  CRUMB_ASSERT(factor.has_value());
  factor_ = *factor;
  table_.fill(kNoCode);
  std::vector<int> integers;
  for (size_t code = 0; code < levels.size(); ++code) {  // a minimum is the first of the levels
    const float integer = form_.has_minima ? levels[code] - levels.front() : levels[code] * static_cast<float>(factor_);
    integers.push_back(static_cast<int>(integer));
    table_[static_cast<uint8_t>(integers.back())] = static_cast<int16_t>(code);
  }
  takes_all_ =
      std::ranges::all_of(form_.levels, [&](int8_t level) { return table_[static_cast<uint8_t>(level)] != kNoCode; });
  first_ = static_cast<uint8_t>(integers.front());
  shift_ = shift_of(integers);
}

bool RowCodes::find_codes(const int8_t* integers, int64_t n, uint8_t* codes) const {
  if (shift_ < 0) {
    int16_t least = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int16_t code = table_[static_cast<uint8_t>(integers[i])];
      codes[i] = static_cast<uint8_t>(code);
      least = std::min(least, code);
    }
    return least != kNoCode;
  }
  const uint8_t worst =
      shift_ == 0 ? number_evenly<0>(integers, n, first_, codes) : number_evenly<1>(integers, n, first_, codes);
  return worst < levels_.size();
}

bool RowCodes::decode(const void* row, int64_t cols, uint8_t* codes, float* scales, float* minima) const {
  CRUMB_ASSERT(minima == nullptr || (form_.has_minima && levels_.front() == 0));
  const int64_t size = block_size(type_), groups_a_block = size / form_.group_cols;
  CRUMB_ASSERT(cols % size == 0 && kChunk % size == 0);
  const auto* bytes = static_cast<const uint8_t*>(row);
  const bool reads_levels = codes != nullptr || !takes_all_;
  std::array<int8_t, kChunk> integers;
  std::array<uint8_t, kChunk> unwanted;
  std::array<LevelGroup, kChunk / kLeastGroup> groups;
  for (int64_t at = 0; at < cols; at += kChunk) {
    const int64_t count = std::min(kChunk, cols - at);
    decode_levels(type_, bytes + at / size * block_bytes(type_), count, reads_levels ? integers.data() : nullptr,
                  groups.data());
    for (int64_t block = 0; block < count / size; ++block) {
      const auto scale = scale_of({groups.data() + block * groups_a_block, static_cast<size_t>(groups_a_block)}, form_,
                                  levels_.front(), factor_, minima != nullptr);
      if (!scale) return false;
      *scales++ = *scale;
      if (minima != nullptr) *minima++ = groups[static_cast<size_t>(block * groups_a_block)].minimum;
    }
    if (reads_levels && !find_codes(integers.data(), count, codes == nullptr ? unwanted.data() : codes + at))
      return false;
  }
  return true;
}

}  // namespace crumb::formats
