#include "core/formats/row_codes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/common/error.h"
#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr uint8_t kNoCode = 0xff;

/// The code of each integer a block multiplies its scale with.
using CodeOfInteger = std::array<uint8_t, 256>;

CodeOfInteger code_table(std::span<const float> levels, int factor) {
  CodeOfInteger table;
  table.fill(kNoCode);
  for (size_t code = 0; code < levels.size(); ++code) {
    const auto integer = static_cast<int8_t>(levels[code] * static_cast<float>(factor));
    table[static_cast<uint8_t>(integer)] = static_cast<uint8_t>(code);
  }
  return table;
}

/// The block at `data`: its codes, and the scale d. False where an integer has no code.
bool take_apart(const BlockQ8_0& block, const CodeOfInteger& table, uint8_t* codes, float* d) {
  uint8_t worst = 0;
  for (int j = 0; j < 32; ++j) {
    codes[j] = table[static_cast<uint8_t>(block.qs[j])];
    worst = std::max(worst, codes[j]);
  }
  *d = from_f16(block.d);
  return worst != kNoCode;
}

bool take_apart(const BlockQ4_0& block, const CodeOfInteger& table, uint8_t* codes, float* d) {
  uint8_t worst = 0;
  for (int j = 0; j < 16; ++j) {
    codes[j] = table[static_cast<uint8_t>((block.qs[j] & 15) - 8)];
    codes[j + 16] = table[static_cast<uint8_t>((block.qs[j] >> 4) - 8)];
    worst = std::max({worst, codes[j], codes[j + 16]});
  }
  *d = from_f16(block.d);
  return worst != kNoCode;
}

/// The codes stand in the block as they are.
bool take_apart(const BlockQ2_0C& block, const CodeOfInteger&, uint8_t* codes, float* d) {
  for (int j = 0; j < 512; ++j) codes[j] = static_cast<uint8_t>(block.qs[j / 4] >> 2 * (j % 4) & 3);
  *d = from_f16(block.d);
  return true;
}

/// Likewise, if every sub-block means (q - 1.5) * s: pack_q2_k.
bool take_apart(const BlockQ2_K& block, const CodeOfInteger&, uint8_t* codes, float* d) {
  for (int j = 0; j < 256; ++j)
    codes[j] = static_cast<uint8_t>(block.qs[32 * (j / 128) + j % 32] >> 2 * (j / 32 % 4) & 3);
  *d = from_f16(block.dmin);
  const auto is_seq = [](uint8_t scale) { return scale == kSeqSubScale; };
  return std::ranges::all_of(block.scales, is_seq) && from_f16(block.d) == 2 * *d;
}

template <class Block>
bool take_row_apart(const uint8_t* data, int64_t blocks, int64_t block_cols, std::span<const float> levels, int factor,
                    uint8_t* codes, float* scales) {
  const CodeOfInteger table = code_table(levels, factor);
  for (int64_t i = 0; i < blocks; ++i, data += sizeof(Block), codes += block_cols) {
    Block block;
    std::memcpy(&block, data, sizeof block);
    float d = 0;
    if (!take_apart(block, table, codes, &d) || !(d > 0) || !std::isfinite(d)) return false;
    scales[i] = static_cast<float>(factor) * d;
  }
  return true;
}

}  // namespace

bool decode_codes_row(TensorType type, const void* data, int64_t cols, std::span<const float> levels, uint8_t* codes,
                      float* scales) {
  const auto factor = level_factor(type, levels);
  CRUMB_ASSERT(factor && cols % block_size(type) == 0);
  const auto* bytes = static_cast<const uint8_t*>(data);
  const int64_t size = block_size(type), blocks = cols / size;
  switch (type) {
    case TensorType::q4_0:
      return take_row_apart<BlockQ4_0>(bytes, blocks, size, levels, *factor, codes, scales);
    case TensorType::q8_0:
      return take_row_apart<BlockQ8_0>(bytes, blocks, size, levels, *factor, codes, scales);
    case TensorType::q2_k:
      return take_row_apart<BlockQ2_K>(bytes, blocks, size, levels, *factor, codes, scales);
    case TensorType::q2_0c:
      return take_row_apart<BlockQ2_0C>(bytes, blocks, size, levels, *factor, codes, scales);
    default:
      return false;
  }
}

}  // namespace crumb::formats
