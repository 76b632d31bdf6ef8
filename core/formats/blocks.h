// The block layouts of ggml tensor types, as plain structs: what kernels and codecs share. "half" is IEEE binary16,
// little-endian. Source: ggml's ggml-common.h (layouts), llama.cpp pull request 19357 (Q2_0C).
#pragma once

#include <cstdint>

namespace crumb::formats {

struct BlockQ4_0 {  // 32 weights: low nibble of byte j = weight j, high nibble = weight j + 16; value (q - 8) * d
  uint16_t d;       // half
  uint8_t qs[16];
};
struct BlockQ4_1 {  // as Q4_0; value q * d + m
  uint16_t d, m;    // halves
  uint8_t qs[16];
};
struct BlockQ5_0 {  // nibbles as Q4_0, the fifth bit of weight w is bit w of qh; value (q - 16) * d
  uint16_t d;       // half
  uint8_t qh[4];
  uint8_t qs[16];
};
struct BlockQ5_1 {  // bits as Q5_0; value q * d + m
  uint16_t d, m;    // halves
  uint8_t qh[4];
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
struct BlockQ3_K {    // 256 weights: low two bits as Q2_K, q is less by 4 unless bit w / 32 of hmask[w % 32] is set
  uint8_t hmask[32];  // value d * (sc - 32) * q, sub-blocks of 16 with the sc of unpack_q3_k_scale
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;  // half
};
struct BlockQ4_K {   // 256 weights in sub-blocks of 32: low nibbles of qs[32 h + l] are weight 64 h + l, high nibbles
  uint16_t d, dmin;  // weight 64 h + 32 + l; value d * sc * q - dmin * m, sc and m as in unpack_k_scales. Halves
  uint8_t scales[12];
  uint8_t qs[128];
};
struct BlockQ5_K {   // as Q4_K; the fifth bit of weight w is bit w / 32 of qh[w % 32]
  uint16_t d, dmin;  // halves
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
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

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110);
static_assert(sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);
static_assert(sizeof(BlockQ2_0C) == 130);

}  // namespace crumb::formats
