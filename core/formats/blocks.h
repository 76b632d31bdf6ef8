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
struct BlockQ6_K {  // 256 weights, value d * scales[g] * (q - 32), see levels_of_q6_k
  uint8_t ql[128];  // low 4 bits
  uint8_t qh[64];   // high 2 bits
  int8_t scales[16];
  uint16_t d;  // half
};
struct BlockIQ4_NL {  // nibbles as Q4_0; value d * kIq4Values[q]
  uint16_t d;         // half
  uint8_t qs[16];
};
struct BlockIQ4_XS {  // eight sub-blocks of 32 as IQ4_NL, value d * (sc - 32) * kIq4Values[q]
  uint16_t d;         // half
  uint16_t scales_h;  // two high bits of each sc
  uint8_t scales_l[4];
  uint8_t qs[128];
};
struct BlockIQ2_XXS {  // 256 weights, in points of 8 of kIq2XxsGrid; value d * (sc + 0.5) / 4 * point
  uint16_t d;          // half
  struct {             // 32 weights
    uint8_t points[4];
    uint8_t signs_and_scale[4];  // little-endian: four times 7 signs, 4 bits of sc
  } groups[8];
};
struct BlockIQ2_XS {  // as IQ2_XXS with kIq2XsGrid
  uint16_t d;         // half
  uint16_t qs[32];    // 9 bits of point, 7 signs
  uint8_t scales[8];  // sc of 16 weights, low nibble first
};
struct BlockIQ2_S {   // as IQ2_XS with kIq2SGrid
  uint16_t d;         // half
  uint8_t qs[32];     // low 8 bits of the points
  uint8_t signs[32];  // of 8 weights each
  uint8_t qh[8];      // high 2 bits of the points
  uint8_t scales[8];
};
struct BlockIQ3_XXS {  // 256 weights, in points of 4 of kIq3XxsGrid; value d * (sc + 0.5) / 2 * point
  uint16_t d;          // half
  uint8_t qs[64];
  uint8_t signs_and_scales[32];  // for 32 weights each, as in IQ2_XXS
};
struct BlockIQ3_S {   // points of kIq3SGrid; value d * (2 sc + 1) * point
  uint16_t d;         // half
  uint8_t qs[64];     // low 8 bits of the points
  uint8_t qh[8];      // their ninth bits
  uint8_t signs[32];  // of 8 weights each
  uint8_t scales[4];  // sc of 32 weights, low nibble first
};
struct BlockIQ1_S {  // 256 weights, in points of 8 of kIq1SGrid; value d * (2 sc + 1) * (point +- 1/8)
  uint16_t d;        // half
  uint8_t qs[32];    // low 8 bits of the points
  uint16_t qh[8];    // for 32 weights: four times 3 high bits of a point, 3 bits of sc, minus
};
struct BlockIQ1_M {    // as IQ1_S
  uint8_t qs[32];      // low 8 bits of the points
  uint8_t qh[16];      // a nibble a point: 3 high bits, minus
  uint16_t scales[4];  // four times 3 bits of sc of 16 weights, 4 bits of the half d
};
struct BlockTQ1_0 {  // 256 weights: digits of base 3, see tq_blocks.cpp; value d * (q - 1)
  uint8_t qs[48];    // five digits a byte: weights 0-159 in bytes 0-31, 160-239 in bytes 32-47
  uint8_t qh[4];     // four digits a byte
  uint16_t d;        // half
};
struct BlockTQ2_0 {  // 256 weights: bits as Q2_K; value d * (q - 1)
  uint8_t qs[64];
  uint16_t d;  // half
};
struct BlockMXFP4 {  // 32 weights: nibbles as Q4_0, E2M1; one scale 2^(e - 127)
  uint8_t e;
  uint8_t qs[16];
};
struct BlockNVFP4 {  // 64 weights, E2M1, in sub-blocks of 16 (low nibbles first) with a scale of E4M3 without sign
  uint8_t scales[4];
  uint8_t qs[32];
};
struct BlockQ2_0C {  // 512 weights: weight j is bits 2 (j % 4) of qs[j / 4]; value (2 q - 3) * d
  uint16_t d;        // half; one scale a row, repeated in each of its blocks
  uint8_t qs[128];
};

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110);
static_assert(sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);
static_assert(sizeof(BlockIQ4_NL) == 18 && sizeof(BlockIQ4_XS) == 136 && sizeof(BlockIQ2_XXS) == 66);
static_assert(sizeof(BlockIQ2_XS) == 74 && sizeof(BlockIQ2_S) == 82 && sizeof(BlockIQ3_XXS) == 98);
static_assert(sizeof(BlockIQ3_S) == 110 && sizeof(BlockIQ1_S) == 50 && sizeof(BlockIQ1_M) == 56);
static_assert(sizeof(BlockTQ1_0) == 54 && sizeof(BlockTQ2_0) == 66 && sizeof(BlockMXFP4) == 17);
static_assert(sizeof(BlockNVFP4) == 36 && sizeof(BlockQ2_0C) == 130);

}  // namespace crumb::formats
