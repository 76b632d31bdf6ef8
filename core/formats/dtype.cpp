#include "core/formats/dtype.h"

#include <array>
#include <cstring>
#include <limits>

#include "core/common/error.h"

namespace crumb::formats {
namespace {

struct DTypeFacts {
  DType dtype;
  std::string_view name;
  int64_t bytes;
};

constexpr std::array<DTypeFacts, 15> kDTypes = {{
    {DType::boolean, "BOOL", 1},
    {DType::u8, "U8", 1},
    {DType::i8, "I8", 1},
    {DType::f8_e5m2, "F8_E5M2", 1},
    {DType::f8_e4m3, "F8_E4M3", 1},
    {DType::i16, "I16", 2},
    {DType::u16, "U16", 2},
    {DType::f16, "F16", 2},
    {DType::bf16, "BF16", 2},
    {DType::i32, "I32", 4},
    {DType::u32, "U32", 4},
    {DType::f32, "F32", 4},
    {DType::i64, "I64", 8},
    {DType::u64, "U64", 8},
    {DType::f64, "F64", 8},
}};

const DTypeFacts& facts(DType dtype) {
  const auto& entry = kDTypes[static_cast<size_t>(dtype)];
  CRUMB_ASSERT(entry.dtype == dtype);
  return entry;
}

// The finite-only variant ("fn"): no infinities, exponent and mantissa all ones is NaN.
float from_f8_e4m3(uint8_t bits) {
  const float sign = (bits & 0x80) != 0 ? -1.0f : 1.0f;
  const uint32_t exponent = (bits >> 3) & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<float>::quiet_NaN();
  if (exponent == 0) return sign * static_cast<float>(mantissa) * 0x1p-9f;
  return sign * std::bit_cast<float>((exponent + 120) << 23 | mantissa << 20);
}

// Tensors of a file lie at any byte, so elements are copied out, never pointed at.
template <class T, class Convert>
void convert_from(const void* data, int64_t count, float* out, Convert convert) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  for (int64_t i = 0; i < count; ++i) {
    T element;
    std::memcpy(&element, bytes + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    out[i] = convert(element);
  }
}

template <class T, class Convert>
void convert_to(const float* data, int64_t count, void* out, Convert convert) {
  auto* bytes = static_cast<uint8_t*>(out);
  for (int64_t i = 0; i < count; ++i) {
    const T element = convert(data[i]);
    std::memcpy(bytes + i * static_cast<int64_t>(sizeof(T)), &element, sizeof(T));
  }
}

}  // namespace

int64_t dtype_bytes(DType dtype) { return facts(dtype).bytes; }

std::string_view dtype_name(DType dtype) { return facts(dtype).name; }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const auto& entry : kDTypes) {
    if (entry.name == name) return entry.dtype;
  }
  return std::nullopt;
}

void to_float(DType dtype, const void* data, int64_t count, float* out) {
  switch (dtype) {
    case DType::f32:
      std::memcpy(out, data, static_cast<size_t>(count) * sizeof(float));
      return;
    case DType::bf16:
      return convert_from<uint16_t>(data, count, out, from_bf16);
    case DType::f16:
      return convert_from<uint16_t>(data, count, out, from_f16);
    case DType::f64:
      return convert_from<double>(data, count, out, [](double v) { return static_cast<float>(v); });
    case DType::f8_e4m3:
      return convert_from<uint8_t>(data, count, out, from_f8_e4m3);
    case DType::f8_e5m2:  // the upper byte of a binary16
      return convert_from<uint8_t>(data, count, out, [](uint8_t v) { return from_f16(static_cast<uint16_t>(v << 8)); });
    default:
      user_error("{} elements cannot be read as floats; expected F64, F32, F16, BF16 or F8", dtype_name(dtype));
  }
}

void from_float(DType dtype, const float* data, int64_t count, void* out) {
  switch (dtype) {
    case DType::f32:
      std::memcpy(out, data, static_cast<size_t>(count) * sizeof(float));
      return;
    case DType::bf16:
      return convert_to<uint16_t>(data, count, out, to_bf16);
    case DType::f16:
      return convert_to<uint16_t>(data, count, out, to_f16);
    case DType::f64:
      return convert_to<double>(data, count, out, [](float v) { return static_cast<double>(v); });
    default:
      user_error("floats cannot be written as {}; expected F64, F32, F16 or BF16", dtype_name(dtype));
  }
}

}  // namespace crumb::formats
