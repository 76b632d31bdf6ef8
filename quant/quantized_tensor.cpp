#include "quant/quantized_tensor.h"

#include <bit>
#include <cstring>

#include "core/common/error.h"

namespace crumb::quant {

GroupScale QuantizedTensor::group(size_t i) const {
  GroupScale group{scales[i]};
  if (format.has_zero_points()) group.zero_point = zero_points[i];
  if (format.has_minima) group.minimum = minima[i];
  return group;
}

void QuantizedTensor::set_group(size_t i, const GroupScale& group) {
  scales[i] = group.scale;
  if (format.has_zero_points()) zero_points[i] = group.zero_point;
  if (format.has_minima) minima[i] = group.minimum;
}

void QuantizedTensor::resize_groups() {
  scales.resize(static_cast<size_t>(rows * format.groups(cols)));
  if (format.has_zero_points()) zero_points.resize(scales.size());
  if (format.has_minima) minima.resize(scales.size());
}

void QuantizedTensor::dequantize(float* out) const {
  const int64_t groups = format.groups(cols), group_cols = format.group_cols(cols);
  CRUMB_ASSERT(static_cast<int64_t>(codes.size()) == rows * cols);
  CRUMB_ASSERT(static_cast<int64_t>(scales.size()) == rows * groups && groups * group_cols == cols);
  const std::vector<float> levels = format.levels();
  for (int64_t i = 0; i < rows * groups; ++i) {
    const GroupScale of_group = group(static_cast<size_t>(i));
    const uint8_t* code = codes.data() + i * group_cols;
    float* values = out + i * group_cols;
    for (int64_t k = 0; k < group_cols; ++k) values[k] = of_group.value(levels[code[k]]);
  }
}

int64_t QuantizedTensor::find_broken_mask() const {
  CRUMB_ASSERT(mask.size() == codes.size() && format.has_mask);
  const std::vector<float> levels = format.levels();
  const auto group_cols = static_cast<size_t>(format.group_cols(cols));
  for (size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0 && group(i / group_cols).value(levels[codes[i]]) != 0) return static_cast<int64_t>(i);
  }
  return -1;
}

int64_t packed_row_bytes(int64_t cols, int bits) { return (cols * bits + 7) / 8; }

// 2 bits:   byte 0: dd|cc|bb|aa   (bit 7 left), codes a b c d in order.
// 3 bits:   byte 0: cc|bbb|aaa   byte 1: f|eee|ddd|c   ...: a code may span two bytes.
void pack_row(const uint8_t* codes, int64_t cols, int bits, uint8_t* out) {
  if (bits == 8) {
    std::memcpy(out, codes, static_cast<size_t>(cols));
    return;
  }
  uint32_t pending = 0;
  int pending_bits = 0;
  for (int64_t i = 0; i < cols; ++i) {
    pending |= static_cast<uint32_t>(codes[i]) << pending_bits;
    pending_bits += bits;
    if (pending_bits >= 8) {
      *out++ = static_cast<uint8_t>(pending);
      pending >>= 8;
      pending_bits -= 8;
    }
  }
  if (pending_bits > 0) *out = static_cast<uint8_t>(pending);
}

namespace {

/// In each lane of `lane` bits, of which 2 * bits are used, the upper half of these moves up to where half a lane
/// begins.
constexpr uint64_t spread(uint64_t x, int bits, int lane, uint64_t lanes) {
  const uint64_t lower = (~uint64_t{0} >> (64 - bits)) * lanes;
  return (x & lower) | (x << (lane / 2 - bits) & lower << lane / 2);
}
/// Eight codes, which fill kBits bytes: halves, quarters and single codes are moved to where their bytes begin.
template <int kBits>
uint64_t spread_eight(const uint8_t* packed) {
  static_assert(std::endian::native == std::endian::little);
  uint64_t x = 0;
  std::memcpy(&x, packed, kBits);
  x = spread(x, 4 * kBits, 64, 1);
  x = spread(x, 2 * kBits, 32, 0x0000000100000001);
  return spread(x, kBits, 16, 0x0001000100010001);
}

/// `bytes` bytes of four codes of 2 bits, or two of 4, each: shifts that compilers turn into vectors.
void unpack_crumbs(const uint8_t* packed, int64_t bytes, uint8_t* codes) {
  for (int64_t i = 0; i < bytes; ++i) {
    const uint32_t byte = packed[i], four = (byte | byte << 6 | byte << 12 | byte << 18) & 0x03030303;
    std::memcpy(codes + 4 * i, &four, sizeof four);
  }
}
void unpack_nibbles(const uint8_t* packed, int64_t bytes, uint8_t* codes) {
  for (int64_t i = 0; i < bytes; ++i) {
    const auto byte = static_cast<uint16_t>(packed[i]), two = static_cast<uint16_t>((byte | byte << 4) & 0x0f0f);
    std::memcpy(codes + 2 * i, &two, sizeof two);
  }
}

/// The codes that come in whole eights; their number.
template <int kBits>
int64_t unpack_eights(const uint8_t* packed, int64_t cols, uint8_t* codes) {
  const int64_t eights = cols / 8;
  if constexpr (kBits == 2) {
    unpack_crumbs(packed, 2 * eights, codes);
    return eights * 8;
  } else if constexpr (kBits == 4) {
    unpack_nibbles(packed, 4 * eights, codes);
    return eights * 8;
  }
  for (int64_t i = 0; i < eights; ++i) {
    const uint64_t eight = spread_eight<kBits>(packed + i * kBits);
    std::memcpy(codes + 8 * i, &eight, sizeof eight);
  }
  return eights * 8;
}

int64_t unpack_eights(const uint8_t* packed, int64_t cols, int bits, uint8_t* codes) {
  switch (bits) {
    case 1:
      return unpack_eights<1>(packed, cols, codes);
    case 2:
      return unpack_eights<2>(packed, cols, codes);
    case 3:
      return unpack_eights<3>(packed, cols, codes);
    case 4:
      return unpack_eights<4>(packed, cols, codes);
    case 5:
      return unpack_eights<5>(packed, cols, codes);
    case 6:
      return unpack_eights<6>(packed, cols, codes);
    case 7:
      return unpack_eights<7>(packed, cols, codes);
    default:
      return unpack_eights<8>(packed, cols, codes);
  }
}

}  // namespace

void unpack_row(const uint8_t* packed, int64_t cols, int bits, uint8_t* codes) {
  const int64_t done = unpack_eights(packed, cols, bits, codes);
  packed += done / 8 * bits;
  const uint32_t mask = (1u << bits) - 1;
  uint32_t pending = 0;
  int pending_bits = 0;
  for (int64_t i = done; i < cols; ++i) {
    if (pending_bits < bits) {
      pending |= static_cast<uint32_t>(*packed++) << pending_bits;
      pending_bits += 8;
    }
    codes[i] = static_cast<uint8_t>(pending & mask);
    pending >>= bits;
    pending_bits -= bits;
  }
}

}  // namespace crumb::quant
