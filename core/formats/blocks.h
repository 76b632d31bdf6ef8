// The block layouts of ggml tensor types, as plain structs: what kernels and codecs share. "half" is IEEE binary16,
// little-endian. Source: ggml's ggml-common.h (layouts), llama.cpp pull request 19357 (Q2_0C).
#pragma once

#include <cstdint>

namespace crumb::formats {

struct BlockQ4_0 {  // 32 weights: low nibble of byte j = weight j, high nibble = weight j + 16; value (q - 8) * d
  uint16_t d;       // half
  uint8_t qs[16];
};
struct BlockQ8_0 {  // 32 weights, value q * d
  uint16_t d;       // half
  int8_t qs[32];
};
struct BlockQ2_K {     // 256 weights: o = 128 h + 32 j + l is bits 2j of qs[32 h + l], sub-block g = o / 16
  uint8_t scales[16];  // low nibble sc, high nibble m; value d * sc * q - dmin * m
  uint8_t qs[64];
  uint16_t d, dmin;  // halves
};
struct BlockQ6_K {  // 256 weights, value d * scales[g] * (q - 32), see decode_q6_k
  uint8_t ql[128];  // low 4 bits
  uint8_t qh[64];   // high 2 bits
  int8_t scales[16];
  uint16_t d;  // half
};
struct BlockQ2_0C {  // 512 weights: weight j is bits 2 (j % 4) of qs[j / 4]; value (2 q - 3) * d
  uint16_t d;        // half; one scale a row, repeated in each of its blocks
  uint8_t qs[128];
};

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ8_0) == 34 && sizeof(BlockQ2_K) == 84);
static_assert(sizeof(BlockQ6_K) == 210 && sizeof(BlockQ2_0C) == 130);

}  // namespace crumb::formats
