// y = x W^T for up to 16 tokens, W as packed tiles. The warps of a block cut the columns among them; each keeps those
// columns of all tokens in shared memory, as second operands, and walks row tiles, two at a time, so that an operand is
// read once for both. Codes come by cp.async through a ring of stages of the lane's own, without a barrier; the warps'
// sums of two row tiles meet in shared memory behind one barrier and are added in the order of the warps. Nothing
// depends on timing.
#include <type_traits>

#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_shapes.h"
#include "kernels/cuda/tiles.cuh"

namespace crumb::kernels {
namespace {

using namespace device;

constexpr int kSlicesPerBlock = kTileBlockCols / kTileSliceCols, kChunksPerBlock = kTileBlockCols / 8;
constexpr int kTogether = kSkinnyTogether, kStages = kSkinnyStages;

/// bfloat16 activations times 2^kScalePower: a code that AND leaves in its word is a subnormal of bfloat16, 2^-133
/// times as large, and their product 2^-69 times code * x: in float32 exact where x is a multiple of 2^-80.
constexpr int kScalePower = 64;

/// The columns that a warp has: [block][slice][token][t], each 8 neighbours, what a lane multiplies with. Floats are
/// also divided by the height at which AND leaves the field of the code that they meet, a power of two.
template <int kBits, bool kInt8>
struct Columns {
  using Words = std::conditional_t<kInt8, uint2, uint4>;
  Words* words;
  int tokens;

  __device__ int at(int block, int slice, int token, int t) const {
    return ((block * kSlicesPerBlock + slice) * tokens + token) * 4 + t;
  }

  __device__ void load(const MatmulArgs& p, int first_block, int count, int lane) {
    constexpr int kBatch = 8;  // loads on their way
    const int chunks = count * kChunksPerBlock, first_col = first_block * kTileBlockCols;
    int token = 0, chunk = lane;
    auto settle = [&] {
      while (chunk >= chunks && token < tokens) chunk -= chunks, ++token;
    };
    if (count == 0) return;
    settle();
    if (kInt8 || (p.x_is_aligned && p.cols % 8 == 0)) {
      while (token < tokens) {
        Words v[kBatch];
        int to[kBatch];
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          to[b] = -1;
          v[b] = Words{};
          if (token >= tokens) continue;
          const int col = first_col + 8 * chunk;
          if constexpr (kInt8)
            v[b] = __ldg(reinterpret_cast<const uint2*>(static_cast<const int8_t*>(p.x) + token * p.x_stride + col));
          else if (col < p.cols)
            v[b] = __ldg(reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(p.x) + token * p.x_stride + col));
          to[b] = at(0, chunk / 4, token, chunk % 4);
          chunk += kWarp;
          settle();
        }
#pragma unroll
        for (int b = 0; b < kBatch; ++b)
          if (to[b] >= 0) words[to[b]] = scaled(v[b], lane / 4);
      }
    } else {
#pragma unroll 1
      for (; token < tokens; chunk += kWarp, settle())
        if constexpr (!kInt8)
          words[at(0, chunk / 4, token, chunk % 4)] = scaled(load_columns(p, token, first_col + 8 * chunk), lane / 4);
    }
  }

  static __device__ uint2 scaled(uint2 v, int) { return v; }
  /// slice: modulo 4; that of a lane's chunks is the same for all of them.
  static __device__ uint4 scaled(const uint4& v, int slice) {
    using F = Fields<kBits>;
    // The field of e = 1 lies 8 bits above that of e = 0 and is shifted down by as much: at the same height.
    const uint32_t factor = static_cast<uint32_t>(127 + kScalePower - kBits * (slice % F::kSlices)) << 7;
    const uint32_t both = factor | factor << 16;
    return {scale_bf16x2(v.x, both), scale_bf16x2(v.y, both), scale_bf16x2(v.z, both), scale_bf16x2(v.w, both)};
  }
};

template <int kBits, int kGroup, int kN, bool kInt8>
__global__ void __launch_bounds__(32 * kSkinnyMostWarps, skinny_blocks(kGroup, kN))
    skinny_kernel(const __grid_constant__ MatmulArgs p) {
  using X = Columns<kBits, kInt8>;
  using F = Fields<kBits>;
  using Acc = std::conditional_t<kInt8, int, float>;
  using Sum = std::conditional_t<kInt8 && kGroup == 0, int, float>;
  constexpr int kUnits = tiles_per_block(kBits), kGroups = kGroup == 0 ? 1 : kTileBlockCols / kGroup;
  constexpr int kOfGroup = kSlicesPerBlock / kGroups;             // slices
  constexpr int kTileGroups = skinny_tile_groups(kBits, kGroup);  // that have their scale in a tile's stage
  constexpr int kOutputs = kN * kTileRows * 8;
  constexpr int kChains = kInt8 && F::kSlices > 1 ? 2 : 1;  // of bytes: a sum for each height
  constexpr int kStageBytes = skinny_stage_bytes(kBits, kGroup), kTurns = skinny_turns(kN);
  extern __shared__ __align__(16) char shared[];
  const int warps = static_cast<int>(blockDim.x) / kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  const int grid = static_cast<int>(gridDim.x);
  const SkinnyShared of_block = skinny_shared(kBits, kGroup, p.tokens, kInt8, warps, p.tiles_a_warp);
  auto* partial = reinterpret_cast<Sum*>(shared);  // [kTurns][kTogether][warps][kN][4][32]
  const int row_tiles = (p.rows + kTileRows - 1) / kTileRows;
  const int first_block = (static_cast<int>(blockIdx.y) * warps + warp) * p.tiles_a_warp;
  const int count = max(0, min(p.tiles_a_warp, p.blocks - first_block));

  // The ring: [stage][row tile of those together] 16 bytes of a lane, then a word for each scale of a group.
  char* ring = shared + of_block.ring + warp * kStages * kStageBytes;
  const auto* codes = static_cast<const uint4*>(p.tiles) + static_cast<int64_t>(first_block) * kUnits * kWarp + lane;
  int next_row_tile = static_cast<int>(blockIdx.x), next_tile = 0;
  auto fetch = [&](int stage) {
    if (next_row_tile < row_tiles && count > 0) {
#pragma unroll
      for (int u = 0; u < kTogether; ++u) {
        const int row_tile = next_row_tile + u * grid;
        if (row_tile >= row_tiles) break;
        copy_async(ring + stage * kStageBytes + u * kTileBytes + lane * 16,
                   codes + static_cast<int64_t>(row_tile * p.blocks * kUnits + next_tile) * kWarp);
#pragma unroll
        for (int i = 0; i < kTileGroups; ++i) {
          const int group = first_block * kGroups + next_tile * kGroups / kUnits + i;
          copy_async_word(
              ring + stage * kStageBytes + kTogether * kTileBytes + ((u * kTileGroups + i) * kWarp + lane) * 4,
              p.scales + (static_cast<int64_t>(row_tile) * p.groups + group) * 8 + g);
        }
      }
      if (++next_tile == count * kUnits) next_tile = 0, next_row_tile += kTogether * grid;
    }
    copies_end_stage();
  };
  // Row scales first, with the first stage: [row tile of the block][8].
  auto* held = reinterpret_cast<uint32_t*>(shared + of_block.scales);
  if constexpr (kGroup == 0) {
    for (int i = static_cast<int>(threadIdx.x); i < kSkinnyHeld * 8; i += static_cast<int>(blockDim.x)) {
      const int row_tile = static_cast<int>(blockIdx.x) + i / 8 * grid;
      if (row_tile < row_tiles) copy_async_word(held + i, p.scales + static_cast<int64_t>(row_tile) * 8 + i % 8);
    }
  }
#pragma unroll 1
  for (int stage = 0; stage < kStages; ++stage) fetch(stage);
  let_next_kernel_start();
  wait_for_previous_kernel();  // the codes depend on no earlier kernel, the activations do

  X x{reinterpret_cast<typename X::Words*>(shared + of_block.columns) +
          warp * p.tiles_a_warp * kChunksPerBlock * p.tokens,
      p.tokens};
  auto* offsets = reinterpret_cast<float*>(shared + of_block.offsets) + warp * p.tiles_a_warp * kGroups * 8 * kN;
  x.load(p, first_block, count, lane);
  __syncwarp();
  // A lane without a token takes the last one, for results that nobody stores.
  int my_token[kN];
#pragma unroll
  for (int n = 0; n < kN; ++n) my_token[n] = min(8 * n + g, p.tokens - 1);

  auto operands = [&](typename X::Words(&of)[kN], int block, int slice) {
#pragma unroll
    for (int n = 0; n < kN; ++n) of[n] = x.words[x.at(block, slice, my_token[n], t)];
  };
  auto multiply = [&](Acc(&acc)[kN][kChains][4], const uint4& tile, const typename X::Words(&of)[kN], int slice) {
    uint32_t a[4];
    if constexpr (kInt8) {
#pragma unroll
      for (int j = 0; j < 4; ++j) a[j] = F::high_bytes(word_of(tile, j), slice);
#pragma unroll
      for (int n = 0; n < kN; ++n) multiply_bytes(acc[n][slice % kChains], a, of[n].x, of[n].y);
    } else {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
#pragma unroll
        for (int j = 0; j < 4; ++j) a[j] = F::subnormal(word_of(tile, j), slice, e);
#pragma unroll
        for (int n = 0; n < kN; ++n) multiply_bf16(acc[n][0], a, word_of(of[n], 2 * e), word_of(of[n], 2 * e + 1));
      }
    }
  };
  auto joined = [&](const Acc(&acc)[kChains][4], int i) {
    Acc sum = acc[0][i];
#pragma unroll
    for (int c = 1; c < kChains; ++c)
      if constexpr (kInt8) sum += acc[c][i] >> (kBits * c);
    return sum;
  };

  // zero * the sum of the columns: a product with codes that are all 1. Of the lane's tokens 8 n + 2 t and the next.
  float away[kN][2] = {};
  const float back = __int_as_float((127 + 133 - kScalePower) << 23);
  const float alpha = static_cast<float>(p.step) * back;
  if constexpr (!kInt8) {
    constexpr uint32_t kOnes = 0xffffffffu / F::kCode;
    const float zero = static_cast<float>(p.zero) * back;
    constexpr int kSums = kGroup == 0 ? 2 : kSlicesPerBlock;  // one alone would wait for itself
    Acc acc[kSums][kN][1][4] = {};
    auto add_slices = [&](int first, int n, int i) {
      float sum = 0;
#pragma unroll
      for (int s = first; s < first + (kGroup == 0 ? kSums : kOfGroup); ++s) sum += acc[s][n][0][i];
      return zero * sum;
    };
#pragma unroll 1
    for (int block = 0; block < count; ++block) {
#pragma unroll
      for (int s = 0; s < kSlicesPerBlock; ++s) {
        typename X::Words of[kN];
        operands(of, block, s);
        multiply(acc[s % kSums], uint4{kOnes, kOnes, kOnes, kOnes}, of, s % F::kSlices);
      }
      if constexpr (kGroup != 0) {
#pragma unroll
        for (int s = 0; s < kSlicesPerBlock; s += kOfGroup)
#pragma unroll
          for (int n = 0; n < kN; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i)
              if (lane < 4) offsets[((block * kGroups + s / kOfGroup) * kN + n) * 8 + 2 * t + i] = add_slices(s, n, i);
#pragma unroll
        for (int s = 0; s < kSlicesPerBlock; ++s)
#pragma unroll
          for (int n = 0; n < kN; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) acc[s][n][0][i] = 0;
      }
    }
    if constexpr (kGroup == 0) {
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) away[n][i] = add_slices(0, n, i);
    }
  } else if constexpr (kGroup != 0) {
    for (int block = 0; block < count; ++block)
      if (lane < 8 * kN) {
        const int64_t token = min(lane, p.tokens - 1);
        offsets[block * kN * 8 + lane] =
            static_cast<float>(p.zero * p.block_sums[token * p.blocks + first_block + block]);
      }
  }
  if constexpr (kGroup != 0) __syncwarp();

  auto row_scale_of = [&](int number, int row) {  // of the row tile with that number in the block
    if (kGroup != 0) return 1.0f;
    const uint32_t pair = number < kSkinnyHeld ? held[number * 8 + row % 8] : p.scales[row / kTileRows * 8 + row % 8];
    return scale_of(pair, row % kTileRows / 8);
  };
  int stage = 0, turn = 0;
  for (int first = static_cast<int>(blockIdx.x); first < row_tiles; first += kTogether * grid, ++turn) {
    const int parity = turn % kTurns;
    Acc acc[kTogether][kN][kChains][4] = {};
    float total[kTogether][kN][4] = {};
    const bool has_second = first + grid < row_tiles;
#pragma unroll 1
    for (int block = 0; block < count; ++block) {
#pragma unroll
      for (int unit = 0; unit < kUnits; ++unit) {
        wait_for_copies<kStages - 1>();
        const char* from = ring + stage * kStageBytes;
        uint4 w[kTogether];
        uint32_t scale[kTogether][kTileGroups == 0 ? 1 : kTileGroups];
#pragma unroll
        for (int u = 0; u < kTogether; ++u) {
          const bool is_there = u == 0 || has_second;
          w[u] = is_there ? *reinterpret_cast<const uint4*>(from + u * kTileBytes + lane * 16) : uint4{};
#pragma unroll
          for (int i = 0; i < kTileGroups; ++i)
            scale[u][i] = is_there ? *reinterpret_cast<const uint32_t*>(from + kTogether * kTileBytes +
                                                                        ((u * kTileGroups + i) * kWarp + lane) * 4)
                                   : 0;
        }
        fetch(stage);
        if (++stage == kStages) stage = 0;
#pragma unroll
        for (int slice = 0; slice < F::kSlices; ++slice) {
          const int s = unit * F::kSlices + slice;
          typename X::Words of[kN];
          operands(of, block, s);
#pragma unroll
          for (int u = 0; u < kTogether; ++u) multiply(acc[u], w[u], of, slice);
          if constexpr (kGroup != 0) {
            if ((s + 1) % kOfGroup != 0) continue;
            const int group = s / kOfGroup;
#pragma unroll
            for (int n = 0; n < kN; ++n) {
              const float2 minus =
                  *reinterpret_cast<const float2*>(offsets + ((block * kGroups + group) * kN + n) * 8 + 2 * t);
#pragma unroll
              for (int u = 0; u < kTogether; ++u)
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                  float value;
                  if constexpr (kInt8)
                    value = static_cast<float>(p.step * joined(acc[u][n], j)) - (j % 2 == 0 ? minus.x : minus.y);
                  else
                    value = fmaf(acc[u][n][0][j], alpha, -(j % 2 == 0 ? minus.x : minus.y));
                  total[u][n][j] = fmaf(value, scale_of(scale[u][group % kTileGroups], j / 2), total[u][n][j]);
#pragma unroll
                  for (int c = 0; c < kChains; ++c) acc[u][n][c][j] = 0;
                }
            }
          }
        }
      }
    }
    if (kTurns == 1) __syncthreads();  // a slow warp may still read the sums of the turn before
#pragma unroll
    for (int u = 0; u < kTogether; ++u) {
      Sum* to = partial + ((parity * kTogether + u) * warps + warp) * kOutputs + lane;
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // neighbouring lanes in neighbouring words: no bank is asked twice
          Sum& out = to[(n * 4 + i) * kWarp];
          if constexpr (kGroup != 0)
            out = total[u][n][i];
          else if constexpr (kInt8)
            out = joined(acc[u][n], i);
          else
            out = fmaf(acc[u][n][0][i], alpha, -away[n][i % 2]);
        }
    }
    if (count == 0) wait_for_copies<kStages - 1>();  // of row scales, with the first stage
    __syncthreads();
    for (int o = static_cast<int>(threadIdx.x); o < kTogether * kOutputs; o += static_cast<int>(blockDim.x)) {
      const int u = o / kOutputs, of_lane = o % kWarp, i = o / kWarp % 4;
      const int token = o % kOutputs / (4 * kWarp) * 8 + of_lane % 4 * 2 + i % 2;
      const int row = (first + u * grid) * kTileRows + of_lane / 4 + 8 * (i / 2);
      if (token >= p.tokens || row >= p.rows) continue;
      const Sum* from = partial + (parity * kTogether + u) * warps * kOutputs + o % kOutputs;
      Sum sum = 0;
#pragma unroll 4
      for (int v = 0; v < warps; ++v) sum += from[v * kOutputs];
      const int64_t at = static_cast<int64_t>(token) * p.rows + row;
      if (p.splits > 1)
        static_cast<Sum*>(p.workspace)[static_cast<int64_t>(blockIdx.y) * p.tokens * p.rows + at] = sum;
      else
        finish(p, token, at, sum, {row_scale_of(kTogether * turn + u, row), bias_of(p, row)});
    }
  }
}

template <int kBits, int kGroup, int kN, bool kInt8>
void launch(const MatmulArgs& args, const SkinnyGrid& grid, CudaStream stream) {
  launch_kernel(skinny_kernel<kBits, kGroup, kN, kInt8>, args, {grid.blocks, static_cast<unsigned>(args.splits), 1},
                grid.warps * device::kWarp,
                skinny_shared(kBits, kGroup, args.tokens, kInt8, static_cast<int>(grid.warps), args.tiles_a_warp).bytes,
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
