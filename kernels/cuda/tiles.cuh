// What the kernels for packed tiles share: loads, products of tensor cores, codes as operands, and how a sum becomes a
// result.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/matmul_args.h"
#include "kernels/packed_tiles.h"

namespace crumb::kernels::device {

// ---- memory ----

__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ inline void copy_async(void* to, const void* from) {  // 16 bytes
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ inline void copy_async_word(void* to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ inline void copies_end_stage() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// What depends on the kernel before in the stream comes after this; only a launch that may overlap waits here.
__device__ inline void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ inline void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---- codes as operands ----

/// Of one 32-bit word with fields of kBits in its halves: in each half a byte for the columns e = 0 and one for e = 1.
template <int kBits>
struct Fields {
  static constexpr int kSlices = tile_slices(kBits);
  static constexpr uint32_t kCode = (1u << kBits) - 1;

  /// Both halves as bfloat16: code * 2^(bits slice - 133), exactly. The low 8 bits of a bfloat16 count in 2^-133, also
  /// where the eighth, the lowest bit of the exponent, makes a normal number of it.
  static __device__ uint32_t subnormal(uint32_t word, int slice, int e) {
    return word >> (8 * e) & (kCode * 0x00010001u) << (kBits * slice);
  }
  /// Four bytes code * 2^(bits (slice % 2)): every other slice needs no shift, or needs one for two.
  static __device__ uint32_t high_bytes(uint32_t word, int slice) {
    return word >> bits_below(slice) & (kCode * 0x01010101u) << (kBits * (slice % 2));
  }
  static constexpr int bits_below(int slice) { return kBits * (slice / 2 * 2); }
  /// Four bytes code.
  static __device__ uint32_t bytes(uint32_t word, int slice) { return word >> (kBits * slice) & kCode * 0x01010101u; }
};

__device__ inline uint32_t and_or(uint32_t x, uint32_t mask, uint32_t bits) {
  uint32_t r;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(x), "r"(mask), "r"(bits));
  return r;
}

__device__ inline uint32_t and_xor(uint32_t x, uint32_t mask, uint32_t bits) {
  uint32_t r;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(r) : "r"(x), "r"(mask), "r"(bits));
  return r;
}

__device__ inline uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t r;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}

/// Of a power of two, exactly where the product is no subnormal.
__device__ inline uint32_t scale_bf16x2(uint32_t x, uint32_t factor) { return fma_bf16x2(x, factor, 0x80008000u); }

__device__ inline uint32_t both_halves(float x) {
  return static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(x))) * 0x00010001u;
}

/// step * code - zero as bfloat16, exactly: a code in the mantissa of 128 = 0x4300 adds itself, times 4 or 16 where it
/// lies 2 or 4 bits higher, and one fused multiply-add takes the 128 away. Its constant has to be a bfloat16, which is
/// why codes of 2 bits are never taken at bit 0 (128 step + zero needs 9 bits).
template <int kBits>
struct LevelsBf16 {
  uint32_t factor[2], bias[2];  // of codes of 2 bits at bits 2 and 4; of 4 bits: bias[0] alone

  __device__ LevelsBf16(int step, int zero) {
    const auto s = static_cast<float>(step), z = static_cast<float>(zero);
    if constexpr (kBits == 2) {
      factor[0] = both_halves(s / 4), bias[0] = both_halves(-32 * s - z);
      factor[1] = both_halves(s / 16), bias[1] = both_halves(-8 * s - z);
    } else {
      bias[0] = both_halves(-128 - z);
    }
  }
  /// Of the field that begins at bit `at` of each half.
  __device__ uint32_t operator()(uint32_t word, int at) const {
    constexpr uint32_t k128 = 0x43004300u, kOne = 0x3f803f80u;
    if constexpr (kBits == 2) {
      const int to = at == 0 || at % 4 == 2 ? 2 : 4;  // a shift serves two neighbours: 2, 4; 6, 8; 10, 12
      const uint32_t moved = at < to ? word << (to - at) : word >> (at - to);
      const uint32_t value = and_or(moved, 0x00030003u << to, k128);
      return to == 2 ? fma_bf16x2(value, factor[0], bias[0]) : fma_bf16x2(value, factor[1], bias[1]);
    } else if constexpr (kBits == 4) {
      return fma_bf16x2(and_or(word >> at, 0x000f000fu, k128), kOne, bias[0]);
    } else {
      // 128 + (c mod 128), less 256 where c < 128, less 128 elsewhere: c - 128.
      const uint32_t moved = word >> at;
      return fma_bf16x2(and_or(moved, 0x007f007fu, k128), kOne, and_xor(moved, 0x00800080u, 0xc380c380u));
    }
  }
};

// ---- products: c [16 rows, 8 tokens] += a [16, k] b [k, 8]; of lane 4 g + t: c[0], c[1] row g, tokens 2 t and 2 t +
// 1; c[2], c[3] row g + 8 ----

__device__ inline void multiply_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline void multiply_bytes(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline uint32_t word_of(const uint4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// ---- scales and results ----

/// Of rows g (i = 0, 1 of an accumulator) and g + 8 (2, 3).
__device__ inline float scale_of(uint32_t pair, int high) {
  return __uint_as_float(high ? pair & 0xffff0000u : pair << 16);
}

__device__ inline float row_scale(const MatmulArgs& p, int row) {
  return scale_of(p.scales[row / kTileRows * 8 + row % 8], row % kTileRows / 8);
}

/// What a sum of the row becomes a result with, but for the scale of the token.
struct Factors {
  float scale, bias;
};
__device__ inline float bias_of(const MatmulArgs& p, int row) { return p.bias == nullptr ? 0.0f : p.bias[row]; }
__device__ inline Factors row_factors(const MatmulArgs& p, int row, bool has_row_scales) {
  return {has_row_scales ? row_scale(p, row) : 1.0f, bias_of(p, row)};
}

/// The result y[at] of a token from the sum over all columns: of floats, sums of (step code - zero) x, times the scales
/// of groups where there are such; of integers, sums of code x.
__device__ inline void finish(const MatmulArgs& p, int token, int64_t at, float sum, const Factors& of_row) {
  const float factor = p.token_scales == nullptr ? of_row.scale : of_row.scale * p.token_scales[token];
  const float value = fmaf(sum, factor, of_row.bias);
  if (p.y_is_bf16)
    static_cast<Bf16*>(p.y)[at] = from_float<Bf16>(value);
  else
    static_cast<float*>(p.y)[at] = value;
}
__device__ inline void finish(const MatmulArgs& p, int token, int64_t at, int sum, const Factors& of_row) {
  finish(p, token, at, static_cast<float>(p.step * sum - p.zero * p.token_sums[token]), of_row);
}

/// 8 neighbouring columns of a token, 0 beyond the matrix.
__device__ inline uint4 load_columns(const MatmulArgs& p, int token, int col) {
  const auto* x = static_cast<const uint16_t*>(p.x) + token * p.x_stride + col;
  if (token >= p.tokens || col >= p.cols) return {};
  if (p.x_is_aligned && col + 8 <= p.cols) return __ldg(reinterpret_cast<const uint4*>(x));
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t low = col + 2 * i < p.cols ? x[2 * i] : 0, high = col + 2 * i + 1 < p.cols ? x[2 * i + 1] : 0;
    words[i] = low | high << 16;
  }
  return {words[0], words[1], words[2], words[3]};
}

}  // namespace crumb::kernels::device
