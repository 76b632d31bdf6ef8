#include "core/formats/codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/common/error.h"
#include "core/formats/block_codecs.h"
#include "core/formats/dtype.h"
#include "core/formats/ggml_types.h"

namespace crumb::formats {
namespace {

void check_finite(TensorType type, const float* values, int64_t cols) {
  for (int64_t i = 0; i < cols; ++i) {
    CRUMB_CHECK(std::isfinite(values[i]), "cannot encode {} as {}: weight {} of the row is not finite", values[i],
                type_name(type), i);
  }
}

void check_groups(TensorType type, int64_t cols, int64_t group_size, int64_t multiple) {
  CRUMB_CHECK(group_size > 0 && cols % group_size == 0, "group size {} does not divide a row of {} weights", group_size,
              cols);
  CRUMB_CHECK(group_size % multiple == 0, "{} holds one scale per {} weights; group size {} does not fit",
              type_name(type), multiple, group_size);
}

uint16_t exact_f16(float value, TensorType type, const char* what = "scale") {
  const uint16_t bits = to_f16(value);
  CRUMB_CHECK(from_f16(bits) == value, "{} cannot hold the {} {} exactly", type_name(type), what, value);
  return bits;
}

// A row of integers times one scale a group, in the float types.
void write_float_group(TensorType type, const float* levels, const uint8_t* codes, int64_t count, uint8_t* out) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = levels[codes[i]];
  const DType dtype = type == TensorType::f32 ? DType::f32 : type == TensorType::f16 ? DType::f16 : DType::bf16;
  from_float(dtype, values.data(), count, out);
}

float rounded(TensorType type, float value) {
  if (type == TensorType::bf16) return round_to_bf16(value);
  return type == TensorType::f16 ? from_f16(to_f16(value)) : value;
}

// Levels times a scale, refused unless the type holds each of them.
std::array<float, 256> exact_levels(TensorType type, std::span<const float> levels, float scale) {
  std::array<float, 256> out{};
  for (size_t code = 0; code < levels.size(); ++code) {
    const double level = static_cast<double>(levels[code]) * static_cast<double>(scale);
    out[code] = rounded(type, static_cast<float>(level));
    CRUMB_CHECK(static_cast<double>(out[code]) == level, "{} cannot hold {} x {} exactly", type_name(type),
                levels[code], scale);
  }
  return out;
}

bool is_float(TensorType type) {
  return type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16;
}

void check_codes(const uint8_t* codes, int64_t cols, size_t levels) {
  uint8_t most = 0;
  for (int64_t i = 0; i < cols; ++i) most = std::max(most, codes[i]);
  CRUMB_ASSERT(most < levels);
}

// Integers of a group through a table, packed with scale d.
void pack_integers(TensorType type, const uint8_t* codes, int64_t count, std::span<const float> levels, int factor,
                   uint16_t d, uint8_t* out) {
  std::array<int8_t, 256> integers{};
  for (size_t code = 0; code < levels.size(); ++code)
    integers[code] = static_cast<int8_t>(levels[code] * static_cast<float>(factor));
  std::vector<int8_t> q(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) q[static_cast<size_t>(i)] = integers[codes[i]];
  if (type == TensorType::q4_0)
    pack_q4_0(q.data(), count, d, out);
  else
    pack_q8_0(q.data(), count, d, out);
}

/// level * d + minimum, of which the block holds what the first level is.
void pack_group_q4_1(const uint8_t* codes, int64_t count, std::span<const float> levels, float d, float minimum,
                     uint8_t* out) {
  std::vector<uint8_t> q(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    q[static_cast<size_t>(i)] = static_cast<uint8_t>(levels[codes[i]] - levels.front());
  const float of_first = levels.front() * d + minimum;
  pack_q4_1(q.data(), count, exact_f16(d, TensorType::q4_1), exact_f16(of_first, TensorType::q4_1, "minimum"), out);
}

/// What a block type multiplies its scale with, less its first level where it has minima.
struct IntegerRange {
  float least, most;
};
std::optional<IntegerRange> integers_of(TensorType type) {
  if (type == TensorType::q4_0) return IntegerRange{-8, 7};
  if (type == TensorType::q4_1) return IntegerRange{0, 15};
  if (type == TensorType::q8_0) return IntegerRange{-128, 127};
  return std::nullopt;
}

bool are_seq_levels(std::span<const float> levels) {
  constexpr std::array kLevels = {-1.5f, -0.5f, 0.5f, 1.5f};
  return std::ranges::equal(levels, kLevels);
}

void write_group(const int8_t* levels, LevelGroup group, int64_t count, float* out) {
  constexpr int64_t kLanes = 16;  // divides every group
  for (int64_t at = 0; at < count; at += kLanes) {
    for (int64_t i = at; i < at + kLanes; ++i) out[i] = static_cast<float>(levels[i]) * group.scale + group.minimum;
  }
}

void decode_blocks(TensorType type, const uint8_t* data, int64_t cols, float* out) {
  constexpr int64_t kCols = 512;  // at once: whole blocks of every type
  int8_t levels[kCols];
  LevelGroup groups[kCols / 16];
  const int64_t group_cols = block_form(type)->group_cols;
  for (int64_t at = 0; at < cols; at += kCols, data += row_bytes(type, kCols)) {
    const int64_t count = std::min(kCols, cols - at);
    decode_levels(type, data, count, levels, groups);
    for (int64_t k = 0; k < count; k += group_cols)
      write_group(levels + k, groups[k / group_cols], group_cols, out + at + k);
  }
}

}  // namespace

std::string_view type_name(TensorType type) { return ggml_type(type).name; }

int64_t block_size(TensorType type) { return ggml_type(type).block_size; }

int64_t block_bytes(TensorType type) { return ggml_type(type).block_bytes; }

int64_t row_bytes(TensorType type, int64_t cols) {
  CRUMB_CHECK(cols % block_size(type) == 0, "a row of {} weights is not a whole number of {} blocks of {}", cols,
              type_name(type), block_size(type));
  return cols / block_size(type) * block_bytes(type);
}

uint16_t finite_f16(float scale) {
  const uint16_t bits = to_f16(scale);
  CRUMB_CHECK((bits & 0x7c00) != 0x7c00,
              "a block scale of {} is beyond the range of binary16: the weights are too large for this type", scale);
  return bits;
}

void decode_row(TensorType type, const void* data, int64_t cols, float* out) {
  CRUMB_ASSERT(cols % block_size(type) == 0);
  const auto* bytes = static_cast<const uint8_t*>(data);
  switch (type) {
    case TensorType::f32:
      return to_float(DType::f32, data, cols, out);
    case TensorType::f16:
      return to_float(DType::f16, data, cols, out);
    case TensorType::bf16:
      return to_float(DType::bf16, data, cols, out);
    default:
      return decode_blocks(type, bytes, cols, out);
  }
}

void encode_row(TensorType type, const float* values, int64_t cols, void* out) {
  row_bytes(type, cols);  // whole blocks only
  auto* bytes = static_cast<uint8_t*>(out);
  if (!is_float(type)) check_finite(type, values, cols);
  switch (type) {
    case TensorType::f32:
      return from_float(DType::f32, values, cols, out);
    case TensorType::f16:
      return from_float(DType::f16, values, cols, out);
    case TensorType::bf16:
      return from_float(DType::bf16, values, cols, out);
    case TensorType::q8_0:
      return encode_q8_0(values, cols, bytes);
    case TensorType::q4_0:
      return encode_q4_0(values, cols, bytes);
    case TensorType::q4_1:
      return encode_q4_1(values, cols, bytes);
    case TensorType::q6_k:
      return encode_q6_k(values, cols, bytes);
    case TensorType::q2_k:
    case TensorType::q2_0c:
      user_error("{} is written from codes and scales only; quantize the weights first", type_name(type));
    default:
      user_error("{} can be read, not written", type_name(type));
  }
}

std::optional<int> level_factor(TensorType type, std::span<const float> levels) {
  if (type == TensorType::q2_k || type == TensorType::q2_0c)
    return are_seq_levels(levels) ? std::optional(2) : std::nullopt;
  const auto range = integers_of(type);
  if (!range) return std::nullopt;
  const bool has_minima = block_form(type)->has_minima;
  const float zero = has_minima ? levels.front() : 0.0f;
  for (const int factor : {1, 2}) {
    if (factor > 1 && has_minima) break;
    const auto fits = [&](float level) {
      const float q = (level - zero) * static_cast<float>(factor);
      return q == std::trunc(q) && q >= range->least && q <= range->most;
    };
    if (std::ranges::all_of(levels, fits)) return factor;
  }
  return std::nullopt;
}

void encode_codes_row(TensorType type, const uint8_t* codes, std::span<const float> levels, const float* scales,
                      int64_t cols, int64_t group_size, void* out, const float* minima) {
  CRUMB_ASSERT(minima == nullptr || type == TensorType::q4_1);
  const auto factor = is_float(type) ? 1 : level_factor(type, levels);
  CRUMB_CHECK(factor.has_value(), "{} cannot hold {} levels from {} to {}", type_name(type), levels.size(),
              levels.front(), levels.back());
  row_bytes(type, cols);
  check_groups(type, cols, group_size, type == TensorType::q2_0c ? cols : block_size(type));
  check_codes(codes, cols, levels.size());
  auto* to = static_cast<uint8_t*>(out);
  for (int64_t at = 0; at < cols; at += group_size, codes += group_size, to += row_bytes(type, group_size)) {
    const float s = scales[at / group_size], d = s / static_cast<float>(*factor);
    if (is_float(type))
      write_float_group(type, exact_levels(type, levels, s).data(), codes, group_size, to);
    else if (type == TensorType::q2_k)
      pack_q2_k(codes, group_size, exact_f16(s, type), exact_f16(d, type), to);
    else if (type == TensorType::q2_0c)
      pack_q2_0c(codes, group_size, exact_f16(d, type), to);
    else if (type == TensorType::q4_1)
      pack_group_q4_1(codes, group_size, levels, s, minima == nullptr ? -0.0f : minima[at / group_size], to);
    else
      pack_integers(type, codes, group_size, levels, *factor, exact_f16(d, type), to);
  }
}

}  // namespace crumb::formats
