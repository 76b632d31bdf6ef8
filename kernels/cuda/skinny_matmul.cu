// y = x W^T for up to 16 tokens, W as packed tiles. The warps of a block cut the columns among them; each keeps those
// columns of all tokens in registers, as second operands, and walks row tiles. Codes go from memory to registers, a few
// row tiles ahead; the warps' sums of a row tile meet in shared memory behind one barrier and are added in the order of
// the warps. Nothing depends on timing.
#include <type_traits>

#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_shapes.h"
#include "kernels/cuda/tiles.cuh"

namespace crumb::kernels {
namespace {

using namespace device;

constexpr int kSlicesPerBlock = kTileBlockCols / kTileSliceCols;

/// The columns of 8 kN tokens that a warp has, in shared memory: [tile][slice][n][lane], each lane what it will
/// multiply with, so that it alone reads what it wrote. Float activations become float16, from bfloat16 without loss
/// but for values below 2^-23 of the token's largest: each token times the power of two that brings its largest below
/// 2^15, and less the height at which AND leaves the field of a code that it meets.
template <int kBits, int kGroup, int kN, bool kInt8>
struct Columns {
  static constexpr int kGroups = kGroup == 0 ? 1 : kTileBlockCols / kGroup;  // of a block
  using Words = std::conditional_t<kInt8, uint2, uint4>;

  Words* words;
  float* offsets;  // [tile][group][8 kN]: zero * the sum of the columns of a group
  float2* tokens;  // [8 kN]: zero * the sum of all columns, and the power of two that undoes the token's

  static __device__ int at(int tile, int slice, int n, int lane) {
    return ((tile * kSlicesPerBlock + slice) * kN + n) * kWarp + lane;
  }

  __device__ void load(const MatmulArgs& p, int first_block, int count, int lane) {
    const int token = lane / 4, t = lane % 4;
    uint32_t largest[kN] = {};  // magnitudes of bfloat16 order as integers, what is not finite above all
#pragma unroll 1
    for (int i = 0; i < count; ++i)
#pragma unroll
      for (int s = 0; s < kSlicesPerBlock; ++s)
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          const int col = (first_block + i) * kTileBlockCols + s * kTileSliceCols + 8 * t;
          if constexpr (kInt8) {
            const auto* x = static_cast<const int8_t*>(p.x) + (8 * n + token) * p.x_stride + col;
            words[at(i, s, n, lane)] = 8 * n + token < p.tokens ? __ldg(reinterpret_cast<const uint2*>(x)) : uint2{};
          } else {
            const uint4 v = load_columns(p, 8 * n + token, col);
            words[at(i, s, n, lane)] = v;
#pragma unroll
            for (int q = 0; q < 4; ++q)
              largest[n] = max(largest[n], max(word_of(v, q) << 16 & 0x7fff0000u, word_of(v, q) & 0x7fff0000u));
          }
        }
    if constexpr (kInt8) {
      if constexpr (kGroup != 0) {
        for (int i = 0; i < count; ++i)
          for (int n = 0; n < kN; ++n) {
            const int64_t of_token = static_cast<int64_t>(8 * n + token) * p.blocks + first_block + i;
            if (t == 0)
              offsets[(i * kN + n) * 8 + token] =
                  8 * n + token < p.tokens ? static_cast<float>(p.zero * p.block_sums[of_token]) : 0.0f;
          }
      }
    } else {
#pragma unroll
      for (int n = 0; n < kN; ++n) to_half(count, lane, n, over_token(largest[n]), static_cast<float>(p.zero));
    }
  }

  static __device__ uint32_t over_token(uint32_t largest) {
    largest = max(largest, __shfl_xor_sync(~0u, largest, 1));
    return max(largest, __shfl_xor_sync(~0u, largest, 2));
  }
  static __device__ float over_token(float sum) {
    sum += __shfl_xor_sync(~0u, sum, 1);
    return sum + __shfl_xor_sync(~0u, sum, 2);
  }

  __device__ void to_half(int count, int lane, int n, uint32_t largest, float zero) {
    const int power = min(127 + 14 - static_cast<int>(largest >> 23), 126);
    const float scale = __int_as_float((127 + power) << 23);
    float sum = 0;
#pragma unroll 1
    for (int i = 0; i < count; ++i)
#pragma unroll
      for (int s = 0; s < kSlicesPerBlock; ++s) {
        uint4& here = words[at(i, s, n, lane)];
        const uint4 v = here;
        uint32_t halves[4];
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          using F = Fields<kBits>;
          const float down = __int_as_float((127 - F::height(F::field(s % F::kSlices, q / 2))) << 23);
          const float low = __uint_as_float(word_of(v, q) << 16) * scale,
                      high = __uint_as_float(word_of(v, q) & 0xffff0000u) * scale;
          sum += low + high;
          const __half2 pair = __floats2half2_rn(low * down, high * down);
          halves[q] = *reinterpret_cast<const uint32_t*>(&pair);
        }
        here = {halves[0], halves[1], halves[2], halves[3]};
        constexpr int kOfGroup = kSlicesPerBlock / kGroups;
        if (kGroup == 0 || (s + 1) % kOfGroup != 0) continue;
        sum = over_token(sum);
        if (lane % 4 == 0) offsets[((i * kGroups + s / kOfGroup) * kN + n) * 8 + lane / 4] = zero * sum;
        sum = 0;
      }
    sum = over_token(sum);
    if (lane % 4 == 0) tokens[8 * n + lane / 4] = {zero * sum, __int_as_float((127 - power) << 23)};
  }
};

template <int kBits, int kGroup, int kN, bool kInt8>
__global__ void __launch_bounds__(32 * kSkinnyMostWarps, 1) skinny_kernel(const __grid_constant__ MatmulArgs p) {
  using X = Columns<kBits, kGroup, kN, kInt8>;
  using F = Fields<kBits>;
  using Acc = std::conditional_t<kInt8, int, float>;
  using Sum = std::conditional_t<kInt8 && kGroup == 0, int, float>;
  constexpr int kTiles = skinny_tiles(kBits), kGroups = X::kGroups, kDepth = skinny_depth(kBits);
  constexpr int kUnits = tiles_per_block(kBits), kOutputs = kN * kTileRows * 8;
  constexpr int kChains = kInt8 ? F::kSlices : 2;  // bytes: a sum for each height; floats: one would wait for itself
  constexpr bool kInRegisters = skinny_in_registers(kBits, kGroup, kN, kInt8);
  extern __shared__ __align__(16) char shared[];
  const int warps = static_cast<int>(blockDim.x) / kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  const SkinnyShared of_block = skinny_shared(kBits, kGroup, kN, kInt8, warps, p.tiles_a_warp);
  auto* partial = reinterpret_cast<Sum*>(shared);  // [2][kDepth][warps][kN][4][32]
  const uint64_t policy = evict_first_policy();
  const int row_tiles = (p.rows + kTileRows - 1) / kTileRows;
  const int first_block = (static_cast<int>(blockIdx.y) * warps + warp) * p.tiles_a_warp;
  const int count = max(0, min(p.tiles_a_warp, p.blocks - first_block));
  const auto* codes = static_cast<const uint4*>(p.tiles) + static_cast<int64_t>(first_block) * kUnits * kWarp + lane;
  const uint32_t* scales = p.scales + static_cast<int64_t>(first_block) * kGroups * 8 + g;

  uint4 w[kDepth][kTiles][kUnits];
  uint32_t scale[kDepth][kTiles][kGroups];
  auto fetch = [&](int slot, int row_tile) {
    if (row_tile >= row_tiles) return;
    const uint4* from = codes + static_cast<int64_t>(row_tile) * p.blocks * kUnits * kWarp;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      if (i >= count) break;
#pragma unroll
      for (int u = 0; u < kUnits; ++u) w[slot][i][u] = load_once(from + (i * kUnits + u) * kWarp, policy);
      if constexpr (kGroup != 0) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group)
          scale[slot][i][group] = __ldg(scales + (static_cast<int64_t>(row_tile) * p.groups + i * kGroups + group) * 8);
      }
    }
  };
#pragma unroll
  for (int u = 0; u < kDepth; ++u) fetch(u, static_cast<int>(blockIdx.x + u * gridDim.x));
  let_next_kernel_start();
  wait_for_previous_kernel();  // the codes depend on no earlier kernel, the activations do

  X x;
  x.words = reinterpret_cast<typename X::Words*>(shared + of_block.columns) + warp * X::at(p.tiles_a_warp, 0, 0, 0);
  x.tokens = reinterpret_cast<float2*>(shared + of_block.tokens) + warp * 8 * kN;
  x.offsets = reinterpret_cast<float*>(shared + of_block.offsets) + warp * p.tiles_a_warp * kGroups * 8 * kN;
  x.load(p, first_block, count, lane);
  __syncwarp();  // other lanes read the tokens' values
  typename X::Words kept[kInRegisters ? kTiles : 1][kSlicesPerBlock][kN];
  if constexpr (kInRegisters) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      if (i >= count) break;
#pragma unroll
      for (int s = 0; s < kSlicesPerBlock; ++s)
#pragma unroll
        for (int n = 0; n < kN; ++n) kept[i][s][n] = x.words[X::at(i, s, n, lane)];
    }
    __syncthreads();  // the sums take the place of the columns
  }
  const float alpha = static_cast<float>(p.step) * 0x1p24f;  // subnormal codes are 2^-24 times the code

  auto multiply_slice = [&](Acc(&acc)[kN][kChains][4], const uint4& tile, int i, int s) {
    const int slice = s % F::kSlices;
    typename X::Words of[kN];
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      if constexpr (kInRegisters)
        of[n] = kept[i][s][n];
      else
        of[n] = x.words[X::at(i, s, n, lane)];
    }
    uint32_t a[4];
    if constexpr (kInt8) {
#pragma unroll
      for (int j = 0; j < 4; ++j) a[j] = F::high_bytes(word_of(tile, j), slice);
#pragma unroll
      for (int n = 0; n < kN; ++n) multiply_bytes(acc[n][slice], a, of[n].x, of[n].y);
    } else {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
#pragma unroll
        for (int j = 0; j < 4; ++j) a[j] = F::subnormal(word_of(tile, j), F::field(slice, e));
#pragma unroll
        for (int n = 0; n < kN; ++n) multiply_half(acc[n][e], a, word_of(of[n], 2 * e), word_of(of[n], 2 * e + 1));
      }
    }
  };
  auto joined = [&](const Acc(&acc)[kChains][4], int i) {
    Acc sum = acc[0][i];
#pragma unroll
    for (int c = 1; c < kChains; ++c)
      if constexpr (kInt8)
        sum += acc[c][i] >> (kBits * c);
      else
        sum += acc[c][i];
    return sum;
  };

  int parity = 0;  // the other half of `partial` may still be read by a slow warp
  for (int first = static_cast<int>(blockIdx.x); first < row_tiles;
       first += kDepth * static_cast<int>(gridDim.x), parity ^= 1) {
#pragma unroll
    for (int u = 0; u < kDepth; ++u) {
      const int row_tile = first + u * static_cast<int>(gridDim.x);
      if (row_tile >= row_tiles) break;
      Acc acc[kN][kChains][4] = {};
      float total[kN][4] = {};
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        if (i >= count) break;
#pragma unroll
        for (int s = 0; s < kSlicesPerBlock; ++s) {
          multiply_slice(acc, w[u][i][s / F::kSlices], i, s);
          if constexpr (kGroup != 0) {
            constexpr int kOfGroup = kSlicesPerBlock / kGroups;
            if ((s + 1) % kOfGroup != 0) continue;
            const int group = s / kOfGroup;
#pragma unroll
            for (int n = 0; n < kN; ++n) {
              const float2 away =
                  *reinterpret_cast<const float2*>(x.offsets + ((i * kGroups + group) * kN + n) * 8 + 2 * t);
#pragma unroll
              for (int j = 0; j < 4; ++j) {
                const float minus = j % 2 == 0 ? away.x : away.y;
                float value;
                if constexpr (kInt8)
                  value = static_cast<float>(p.step * joined(acc[n], j)) - minus;
                else
                  value = fmaf(joined(acc[n], j), alpha, -minus);
                total[n][j] = fmaf(value, scale_of(scale[u][i][group], j / 2), total[n][j]);
#pragma unroll
                for (int c = 0; c < kChains; ++c) acc[n][c][j] = 0;
              }
            }
          }
        }
      }
      fetch(u, row_tile + kDepth * static_cast<int>(gridDim.x));
      Sum* to = partial + ((parity * kDepth + u) * warps + warp) * kOutputs + lane;
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        float4 of = {};  // of the lane's two tokens, 8 n + 2 t and the next
        if constexpr (!kInt8) of = *reinterpret_cast<const float4*>(x.tokens + 8 * n + 2 * t);
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // neighbouring lanes in neighbouring words: no bank is asked twice
          Sum& out = to[(n * 4 + i) * kWarp];
          const float away = i % 2 == 0 ? of.x : of.z, unscale = i % 2 == 0 ? of.y : of.w;
          if constexpr (kGroup != 0)
            out = kInt8 ? total[n][i] : total[n][i] * unscale;
          else if constexpr (kInt8)
            out = joined(acc[n], i);
          else
            out = fmaf(joined(acc[n], i), alpha, -away) * unscale;
        }
      }
    }
    __syncthreads();
    for (int o = static_cast<int>(threadIdx.x); o < kDepth * kOutputs; o += static_cast<int>(blockDim.x)) {
      const int u = o / kOutputs, at = o % kOutputs, row_tile = first + u * static_cast<int>(gridDim.x);
      if (row_tile >= row_tiles) break;
      const Sum* from = partial + (parity * kDepth + u) * warps * kOutputs + at;
      Sum sum = 0;
      for (int v = 0; v < warps; ++v) sum += from[v * kOutputs];
      const int of_lane = at % kWarp, i = at / kWarp % 4;
      finish_or_leave(p, static_cast<int>(blockIdx.y), at / (4 * kWarp) * 8 + of_lane % 4 * 2 + i % 2,
                      row_tile * kTileRows + of_lane / 4 + 8 * (i / 2), sum, kGroup == 0);
    }
  }
}

template <int kBits, int kGroup, int kN, bool kInt8>
void launch(const MatmulArgs& args, const SkinnyGrid& grid, CudaStream stream) {
  launch_kernel(skinny_kernel<kBits, kGroup, kN, kInt8>, args, {grid.blocks, static_cast<unsigned>(args.splits), 1},
                grid.warps * device::kWarp,
                skinny_shared(kBits, kGroup, kN, kInt8, static_cast<int>(grid.warps), args.tiles_a_warp).bytes,
                grid.overlaps, stream, "skinny_matmul");
}

}  // namespace

bool launch_skinny_matmul(int bits, int group, bool int8, const MatmulArgs& args, const SkinnyGrid& grid,
                          CudaStream stream) {
  const int tokens8 = args.tokens <= 8 ? 1 : 2;
#define CRUMB_SKINNY(BITS, GROUP, INT8)                 \
  if (bits == BITS && group == GROUP && int8 == INT8) { \
    if (tokens8 == 1)                                   \
      launch<BITS, GROUP, 1, INT8>(args, grid, stream); \
    else                                                \
      launch<BITS, GROUP, 2, INT8>(args, grid, stream); \
    return true;                                        \
  }
  CRUMB_MATMUL_FORMS(CRUMB_SKINNY)
#undef CRUMB_SKINNY
  return false;
}

}  // namespace crumb::kernels
