#include "core/formats/codec.h"

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

uint16_t exact_f16(float value, TensorType type) {
  const uint16_t bits = to_f16(value);
  CRUMB_CHECK(from_f16(bits) == value, "{} cannot hold the scale {} exactly", type_name(type), value);
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

// Levels of codes 0..count-1: (code - zero) * scale, refused unless the type holds each of them.
std::array<float, 256> exact_levels(TensorType type, int count, double zero, float scale) {
  std::array<float, 256> levels{};
  for (int code = 0; code < count; ++code) {
    const double level = (code - zero) * static_cast<double>(scale);
    levels[static_cast<size_t>(code)] = rounded(type, static_cast<float>(level));
    CRUMB_CHECK(static_cast<double>(levels[static_cast<size_t>(code)]) == level, "{} cannot hold {} x {} exactly",
                type_name(type), code - zero, scale);
  }
  return levels;
}

bool is_float(TensorType type) {
  return type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16;
}

void check_codes(const uint8_t* codes, int64_t cols, int limit) {
  uint8_t all = 0;
  for (int64_t i = 0; i < cols; ++i) all |= codes[i];
  CRUMB_ASSERT(all < limit);  // limit is a power of two
}

// Integers of a group through a table, packed with scale d.
void pack_integers(TensorType type, const uint8_t* codes, int64_t count, int factor, int zero, uint16_t d,
                   uint8_t* out) {
  std::vector<int8_t> q(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) q[static_cast<size_t>(i)] = static_cast<int8_t>(factor * codes[i] - zero);
  if (type == TensorType::q4_0)
    pack_q4_0(q.data(), count, d, out);
  else
    pack_q8_0(q.data(), count, d, out);
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
    case TensorType::q8_0:
      return decode_q8_0(bytes, cols, out);
    case TensorType::q4_0:
      return decode_q4_0(bytes, cols, out);
    case TensorType::q6_k:
      return decode_q6_k(bytes, cols, out);
    case TensorType::q2_k:
      return decode_q2_k(bytes, cols, out);
    case TensorType::q2_0c:
      return decode_q2_0c(bytes, cols, out);
    case TensorType::q4_1:
      return decode_q4_1(bytes, cols, out);
    case TensorType::q5_0:
      return decode_q5_0(bytes, cols, out);
    case TensorType::q5_1:
      return decode_q5_1(bytes, cols, out);
    case TensorType::q3_k:
      return decode_q3_k(bytes, cols, out);
    case TensorType::q4_k:
      return decode_q4_k(bytes, cols, out);
    case TensorType::q5_k:
      return decode_q5_k(bytes, cols, out);
    case TensorType::iq4_nl:
      return decode_iq4_nl(bytes, cols, out);
    case TensorType::iq4_xs:
      return decode_iq4_xs(bytes, cols, out);
    case TensorType::iq2_xxs:
      return decode_iq2_xxs(bytes, cols, out);
    case TensorType::iq2_xs:
      return decode_iq2_xs(bytes, cols, out);
    case TensorType::iq2_s:
      return decode_iq2_s(bytes, cols, out);
    case TensorType::iq3_xxs:
      return decode_iq3_xxs(bytes, cols, out);
    case TensorType::iq3_s:
      return decode_iq3_s(bytes, cols, out);
    case TensorType::iq1_s:
      return decode_iq1_s(bytes, cols, out);
    case TensorType::iq1_m:
      return decode_iq1_m(bytes, cols, out);
    case TensorType::tq1_0:
      return decode_tq1_0(bytes, cols, out);
    case TensorType::tq2_0:
      return decode_tq2_0(bytes, cols, out);
    case TensorType::mxfp4:
      return decode_mxfp4(bytes, cols, out);
    case TensorType::nvfp4:
      return decode_nvfp4(bytes, cols, out);
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
    case TensorType::q6_k:
      return encode_q6_k(values, cols, bytes);
    case TensorType::q2_k:
    case TensorType::q2_0c:
      user_error("{} is written from codes and scales only; quantize the weights first", type_name(type));
    default:
      user_error("{} can be read, not written", type_name(type));
  }
}

void encode_seq_row(TensorType type, const uint8_t* codes, const float* scales, int64_t cols, int64_t group_size,
                    void* out) {
  const bool fits = is_float(type) || type == TensorType::q2_k || type == TensorType::q2_0c ||
                    type == TensorType::q4_0 || type == TensorType::q8_0;
  CRUMB_CHECK(fits, "2-bit codes are not written as {}", type_name(type));
  row_bytes(type, cols);
  check_groups(type, cols, group_size, type == TensorType::q2_0c ? cols : block_size(type));
  check_codes(codes, cols, 4);
  auto* to = static_cast<uint8_t*>(out);
  for (int64_t at = 0; at < cols; at += group_size, codes += group_size, to += row_bytes(type, group_size)) {
    const float s = scales[at / group_size];
    if (is_float(type))
      write_float_group(type, exact_levels(type, 4, 1.5, s).data(), codes, group_size, to);
    else if (type == TensorType::q2_k)
      pack_q2_k(codes, group_size, exact_f16(s, type), exact_f16(s / 2, type), to);
    else if (type == TensorType::q2_0c)
      pack_q2_0c(codes, group_size, exact_f16(s / 2, type), to);
    else
      pack_integers(type, codes, group_size, 2, 3, exact_f16(s / 2, type), to);
  }
}

void encode_int_row(TensorType type, const uint8_t* codes, const float* scales, int64_t cols, int64_t group_size,
                    int bits, void* out) {
  CRUMB_ASSERT(bits >= 1 && bits <= 8);
  const bool fits = is_float(type) || (type == TensorType::q4_0 && bits <= 4) || type == TensorType::q8_0;
  CRUMB_CHECK(fits, "{} cannot hold {}-bit integers", type_name(type), bits);
  row_bytes(type, cols);
  check_groups(type, cols, group_size, block_size(type));
  check_codes(codes, cols, 1 << bits);
  const int zero = 1 << (bits - 1);
  auto* to = static_cast<uint8_t*>(out);
  for (int64_t at = 0; at < cols; at += group_size, codes += group_size, to += row_bytes(type, group_size)) {
    const float s = scales[at / group_size];
    if (is_float(type))
      write_float_group(type, exact_levels(type, 1 << bits, zero, s).data(), codes, group_size, to);
    else
      pack_integers(type, codes, group_size, 1, zero, exact_f16(s, type), to);
  }
}

}  // namespace crumb::formats
