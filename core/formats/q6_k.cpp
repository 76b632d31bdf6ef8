// Q6_K: 16 groups of 16 weights, value d * sc[g] * q with q in -32..31 and sc an int8. The encoder minimises the plain
// squared error in two steps: the best real scale of each group, over a fan of starting scales with a least-squares
// refit; then, for a few d near (largest scale) / -128, the best sc of each group with its weights rounded anew. What
// is scored is exactly what will be decoded.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/formats/block_codecs.h"
#include "core/formats/blocks.h"
#include "core/formats/dtype.h"

namespace crumb::formats {
namespace {

constexpr int kWeights = 256, kGroups = 16, kGroup = 16;

using Float8 = float __attribute__((vector_size(32)));

struct Group {  // 16 weights
  Float8 low, high;
};

Group load(const float* x) {
  Group g;
  std::memcpy(&g, x, sizeof g);
  return g;
}

// To the nearest whole number, halves to even, for |x| < 2^22; then into -32..31.
Float8 quantized(Float8 x) {
  constexpr float kMagic = 0x1.8p23f;
  x = x > 31.0f ? Float8{} + 31.0f : x;
  x = x < -32.0f ? Float8{} - 32.0f : x;
  return (x + kMagic) - kMagic;
}

float sum(Float8 v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

float squared_error(const Group& x, float scale, float inverse) {
  const Float8 a = x.low - scale * quantized(x.low * inverse), b = x.high - scale * quantized(x.high * inverse);
  return sum(a * a + b * b);
}

float extreme(const float* x) {
  float max = 0;
  for (int i = 0; i < kGroup; ++i) {
    if (std::abs(x[i]) > std::abs(max)) max = x[i];
  }
  return max;
}

// The scale with the least squared error that real numbers allow; the weight of greatest magnitude goes near -32, the
// longer side.
float best_scale(const float* values) {
  const float max = extreme(values);
  if (std::abs(max) < 1e-30f) return 0;  // its square would vanish
  const Group x = load(values);
  float best_gain = 0, best = 0;
  for (int step = -9; step <= 9; ++step) {
    const float inverse = -(32.0f + 0.1f * static_cast<float>(step)) / max;
    const Float8 a = quantized(x.low * inverse), b = quantized(x.high * inverse);
    const float xq = sum(x.low * a + x.high * b), qq = sum(a * a + b * b);
    if (qq > 0 && xq * xq > best_gain * qq) {  // the error is sum(x^2) - xq^2 / qq
      best_gain = xq * xq / qq;
      best = xq / qq;
    }
  }
  return best;
}

struct Choice {
  float error = 0;
  uint16_t d = 0;
  std::array<int8_t, kGroups> scales{};
};

Choice best_integers(const float* values, const std::array<float, kGroups>& wanted, uint16_t d_bits) {
  Choice choice{.d = d_bits};
  const float d = from_f16(d_bits);
  for (int g = 0; g < kGroups; ++g) {
    const Group x = load(values + kGroup * g);
    const int near = static_cast<int>(std::lrint(std::clamp(wanted[static_cast<size_t>(g)] / d, -128.0f, 127.0f)));
    float best = sum(x.low * x.low + x.high * x.high);  // scale 0
    for (int sc = std::max(near - 1, -128); sc <= std::min(near + 1, 127); ++sc) {
      if (sc == 0) continue;
      const float scale = d * static_cast<float>(sc), error = squared_error(x, scale, 1 / scale);
      if (error >= best) continue;
      best = error;
      choice.scales[static_cast<size_t>(g)] = static_cast<int8_t>(sc);
    }
    choice.error += best;
  }
  return choice;
}

Choice choose(const float* values) {
  std::array<float, kGroups> scales;
  float largest = 0;
  for (int g = 0; g < kGroups; ++g) {
    scales[static_cast<size_t>(g)] = best_scale(values + kGroup * g);
    if (std::abs(scales[static_cast<size_t>(g)]) > std::abs(largest)) largest = scales[static_cast<size_t>(g)];
  }
  if (largest == 0) return {};
  Choice best;
  const uint16_t nearest = finite_f16(largest / -128);
  // Where d is subnormal, its neighbour away from zero keeps the largest scale in range.
  for (const uint16_t d :
       {nearest, static_cast<uint16_t>(nearest + 1), finite_f16(largest / -126.5f), finite_f16(largest / -125.0f)}) {
    if ((d & 0x7fff) == 0) continue;
    const Choice choice = best_integers(values, scales, d);
    if (best.d == 0 || choice.error < best.error) best = choice;
  }
  return best;
}

// q in 0..63; weights l, l + 32, l + 64, l + 96 of a half share byte l of qh.
void pack_halves(const uint8_t* q, BlockQ6_K& block) {
  for (int h = 0; h < 2; ++h, q += 128) {
    for (int l = 0; l < 32; ++l) {
      block.ql[64 * h + l] = static_cast<uint8_t>((q[l] & 15) | (q[l + 64] & 15) << 4);
      block.ql[64 * h + l + 32] = static_cast<uint8_t>((q[l + 32] & 15) | (q[l + 96] & 15) << 4);
      block.qh[32 * h + l] =
          static_cast<uint8_t>(q[l] >> 4 | q[l + 32] >> 4 << 2 | q[l + 64] >> 4 << 4 | q[l + 96] >> 4 << 6);
    }
  }
}

void take_apart(const BlockQ6_K& block, int8_t* levels, LevelGroup* groups) {
  const float d = from_f16(block.d);
  for (int group = 0; group < kGroups; ++group) groups[group] = {d * static_cast<float>(block.scales[group])};
  for (int run = 0; run < 8; ++run, levels += 32) {  // of 32 weights whose bits lie at the same places
    const int half = run / 4, quarter = run % 4;
    const uint8_t* ql = block.ql + 64 * half + 32 * (quarter % 2);
    const uint8_t* qh = block.qh + 32 * half;
    for (int l = 0; l < 32; ++l)
      levels[l] = static_cast<int8_t>(((ql[l] >> 4 * (quarter / 2) & 15) | (qh[l] >> 2 * quarter & 3) << 4) - 32);
  }
}

}  // namespace

void levels_of_q6_k(const uint8_t* data, int64_t blocks, int8_t* levels, LevelGroup* groups) {
  take_blocks_apart<BlockQ6_K, kWeights, kGroup, take_apart>(data, blocks, levels, groups);
}

void encode_q6_k(const float* values, int64_t count, uint8_t* out) {
  for (int64_t at = 0; at < count; at += kWeights, values += kWeights, out += sizeof(BlockQ6_K)) {
    const Choice choice = choose(values);
    BlockQ6_K block{.ql = {}, .qh = {}, .scales = {}, .d = choice.d};
    std::copy(choice.scales.begin(), choice.scales.end(), block.scales);
    uint8_t q[kWeights];
    for (int g = 0; g < kGroups; ++g) {
      const float scale = from_f16(choice.d) * static_cast<float>(choice.scales[static_cast<size_t>(g)]);
      const float inverse = scale == 0 ? 0 : 1 / scale;
      const Group x = load(values + kGroup * g);
      const Float8 a = quantized(x.low * inverse), b = quantized(x.high * inverse);
      for (int l = 0; l < 8; ++l) {
        q[kGroup * g + l] = static_cast<uint8_t>(static_cast<int>(a[l]) + 32);
        q[kGroup * g + l + 8] = static_cast<uint8_t>(static_cast<int>(b[l]) + 32);
      }
    }
    pack_halves(q, block);
    std::memcpy(out, &block, sizeof block);
  }
}

}  // namespace crumb::formats
