// y = x W^T for more tokens than the skinny kernel takes, W as packed tiles. A block has 128 or 256 rows and 32 or 64
// tokens; a warp has a quarter of the rows, so that a code is decoded once for all tokens of the block. Codes and
// activations come by cp.async through a ring of stages of 128 columns each. Float activations stay bfloat16, codes
// become bfloat16 without rounding; int8 activations meet the codes as bytes. Scales of groups are applied to sums, in
// float32, so that products are exact and nothing is rounded before a sum.
#include <type_traits>

#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_shapes.h"
#include "kernels/cuda/tiles.cuh"

namespace crumb::kernels {
namespace {

using namespace device;

constexpr int kSlicesPerBlock = kTileBlockCols / kTileSliceCols, kThreads = kMatmulWarps * kWarp;

/// Byte of a stage's activations where the 16 bytes `chunk` of a token begin. What lanes of 8 tokens read at a time
/// lies in different banks.
template <bool kInt8>
__device__ int place_of(int token, int chunk) {
  if constexpr (kInt8)
    return token * kTileBlockCols + (chunk ^ token % 4 * 2) * 16;
  else
    return token * kTileBlockCols * 2 + (chunk ^ token % 2 * 4) * 16;
}

template <int kBits, int kGroup, int kTokens, bool kInt8>
__global__ void __launch_bounds__(kThreads, matmul_blocks(kBits, kGroup, kTokens))
    tile_matmul_kernel(const __grid_constant__ MatmulArgs p) {
  using F = Fields<kBits>;
  using Acc = std::conditional_t<kInt8, int, float>;
  using Sum = std::conditional_t<kInt8 && kGroup == 0, int, float>;
  constexpr int kN = kTokens / 8, kStages = matmul_stages(kBits), kUnits = tiles_per_block(kBits);
  constexpr int kGroups = kGroup == 0 ? 1 : kTileBlockCols / kGroup, kOfGroup = kSlicesPerBlock / kGroups;
  constexpr int kStageBytes = matmul_stage_bytes(kBits, kGroup, kTokens, kInt8);
  constexpr int kTileStage = matmul_tile_bytes(kBits, kGroup, kTokens), kR = matmul_row_tiles(kBits, kGroup, kTokens);
  extern __shared__ __align__(128) char shared[];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int g = lane / 4, t = lane % 4;
  const int row_tiles = (p.rows + kTileRows - 1) / kTileRows;
  const int first_tile = (static_cast<int>(blockIdx.x) * kMatmulWarps + warp) * kR;
  const int first_token = static_cast<int>(blockIdx.y) * kTokens, split = static_cast<int>(blockIdx.z);
  const int first = static_cast<int>(static_cast<int64_t>(p.blocks) * split / p.splits),
            last = static_cast<int>(static_cast<int64_t>(p.blocks) * (split + 1) / p.splits);
  const int beyond = row_tiles - 1 - first_tile;  // tiles after it are unused: once more the last one
  const auto row_tile = [&](int r) { return first_tile + min(r, beyond); };
  char* my_codes = shared + warp * kR * kUnits * kTileBytes + lane * 16;

  const uint4* first_codes =
      static_cast<const uint4*>(p.tiles) + static_cast<int64_t>(first_tile) * p.blocks * kUnits * kWarp + lane;
  auto load_codes = [&](int stage, int block) {
#pragma unroll
    for (int r = 0; r < kR; ++r)
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        const int tile = min(r, beyond) * p.blocks * kUnits + block * kUnits + u;
        copy_async(my_codes + stage * kStageBytes + (r * kUnits + u) * kTileBytes, first_codes + tile * kWarp);
      }
  };
  // A thread copies the same 16 bytes of every kStride-th token, to places kStride rows apart.
  constexpr int kElement = kInt8 ? 1 : 2, kRowBytes = kTileBlockCols * kElement;
  constexpr int kChunks = kRowBytes / 16, kStride = kThreads / kChunks;
  const int chunk = static_cast<int>(threadIdx.x) % kChunks, my_token = static_cast<int>(threadIdx.x) / kChunks;
  const int my_place = kTileStage + place_of<kInt8>(my_token, chunk);
  const int x_stride = static_cast<int>(p.x_stride) * kElement, last_token = p.tokens - 1 - first_token;
  const auto* my_x = static_cast<const char*>(p.x) + static_cast<int64_t>(first_token) * x_stride + chunk * 16;
  auto load_tokens = [&](int stage, int block) {
    char* to = shared + stage * kStageBytes + my_place;
    const int of_block = block * kRowBytes;
    const bool is_whole = kInt8 || (p.x_is_aligned && (block + 1) * kTileBlockCols <= p.cols);
    if (is_whole) {
#pragma unroll
      for (int i = 0; i < kTokens; i += kStride) {
        // Where there is no such token, the last one once more: results that nobody stores.
        copy_async(to + i * kRowBytes, my_x + (min(my_token + i, last_token) * x_stride + of_block));
      }
    } else {
#pragma unroll 1
      for (int i = 0; i < kTokens; i += kStride)
        *reinterpret_cast<uint4*>(to + i * kRowBytes) =
            load_columns(p, first_token + my_token + i, block * kTileBlockCols + chunk * 8);
    }
  };

  // Codes of the first stages depend on no earlier kernel. They belong to the group of copies of the first stage.
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s)
    if (first + s < last) load_codes(s, first + s);
  let_next_kernel_start();
  wait_for_previous_kernel();
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (first + s < last) load_tokens(s, first + s);
    copies_end_stage();
  }

  Acc acc[kR][kN][4] = {};
  float total[kGroup == 0 ? 1 : kR][kGroup == 0 ? 1 : kN][4] = {};
  const LevelsBf16<kBits> levels(p.step, p.zero);
  int stage = 0;
  for (int block = first; block < last; ++block) {
    wait_for_copies<kStages - 2>();
    __syncthreads();  // all have this stage, and none still reads the one that is filled now
    {
      const int next = block + kStages - 1, to = stage == 0 ? kStages - 1 : stage - 1;
      if (next < last) load_codes(to, next), load_tokens(to, next);
      copies_end_stage();
    }
    const char* tokens = shared + stage * kStageBytes + kTileStage;
    uint32_t scale[kR] = {};
    auto end_group = [&](int r) {  // of a row tile: the scale is applied to the group's sums
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float value;
          if constexpr (kInt8) {
            const int64_t token = min(first_token + 8 * n + 2 * t + i % 2, p.tokens - 1);
            value = static_cast<float>(p.step * acc[r][n][i] - p.zero * __ldg(p.block_sums + token * p.blocks + block));
          } else {
            value = acc[r][n][i];
          }
          total[r][n][i] = fmaf(value, scale_of(scale[r], i / 2), total[r][n][i]);
          acc[r][n][i] = 0;
        }
    };
    uint4 w[kR];
    // Groups of 32 one tile after the other: overlapped, their sums would need more registers than there are.
#pragma unroll kGroup == kTileSliceCols ? 1 : kUnits
    for (int unit = 0; unit < kUnits; ++unit) {
#pragma unroll
      for (int r = 0; r < kR; ++r)
        w[r] = *reinterpret_cast<const uint4*>(my_codes + stage * kStageBytes + (r * kUnits + unit) * kTileBytes);
#pragma unroll
      for (int slice = 0; slice < F::kSlices; ++slice) {
        const int s = unit * F::kSlices + slice;
        if constexpr (kGroup != 0) {
          if (s % kOfGroup == 0) {
#pragma unroll
            for (int r = 0; r < kR; ++r)
              scale[r] = __ldg(p.scales +
                               (static_cast<int64_t>(row_tile(r)) * p.groups + block * kGroups + s / kOfGroup) * 8 + g);
          }
        }
        if constexpr (kInt8) {
          uint2 x[kN];
#pragma unroll
          for (int n = 0; n < kN; ++n)
            x[n] = *reinterpret_cast<const uint2*>(tokens + place_of<true>(8 * n + g, 2 * s + t / 2) + t % 2 * 8);
#pragma unroll
          for (int r = 0; r < kR; ++r) {
            uint32_t a[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) a[i] = F::bytes(word_of(w[r], i), slice);
#pragma unroll
            for (int n = 0; n < kN; ++n) multiply_bytes(acc[r][n], a, x[n].x, x[n].y);
          }
        } else {
          uint4 x[kN];
#pragma unroll
          for (int n = 0; n < kN; ++n)
            x[n] = *reinterpret_cast<const uint4*>(tokens + place_of<false>(8 * n + g, 4 * s + t));
#pragma unroll
          for (int e = 0; e < 2; ++e)
#pragma unroll
            for (int r = 0; r < kR; ++r) {
              uint32_t a[4];
#pragma unroll
              for (int i = 0; i < 4; ++i) a[i] = levels(word_of(w[r], i), 8 * e + kBits * slice);
#pragma unroll
              for (int n = 0; n < kN; ++n) multiply_bf16(acc[r][n], a, word_of(x[n], 2 * e), word_of(x[n], 2 * e + 1));
              if (kGroup == kTileSliceCols && e == 1) end_group(r);
            }
        }
        if constexpr (kGroup == kTileBlockCols) {
          if (s + 1 == kSlicesPerBlock)
#pragma unroll
            for (int r = 0; r < kR; ++r) end_group(r);
        }
      }
    }
    if (++stage == kStages) stage = 0;
  }
#pragma unroll
  for (int r = 0; r < kR; ++r)
#pragma unroll
    for (int high = 0; high < 2; ++high) {
      asm volatile("" ::: "memory");  // or the compiler loads all factors first, and runs out of registers
      const int row = (first_tile + r) * kTileRows + g + 8 * high, token = first_token + 2 * t;
      if (row >= p.rows) continue;
      Factors of_row{};
      if (p.splits == 1) of_row = row_factors(p, row, kGroup == 0);
      // Of token 8 n + 2 t + i: an offset that is the same for all lanes.
      const int64_t at = (static_cast<int64_t>(p.splits == 1 ? 0 : split) * p.tokens + token) * p.rows + row;
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (token + 8 * n + i >= p.tokens) continue;
          Sum sum;
          if constexpr (kGroup == 0)
            sum = acc[r][n][2 * high + i];
          else
            sum = total[r][n][2 * high + i];
          const int64_t to = at + static_cast<int64_t>(8 * n + i) * p.rows;
          if (p.splits == 1)
            finish(p, token + 8 * n + i, to, sum, of_row);
          else
            static_cast<Sum*>(p.workspace)[to] = sum;
        }
    }
}

/// A thread takes one row, and of the tokens every gridDim.y-th.
template <class Sum, bool kHasRowScales>
__global__ void __launch_bounds__(256) add_splits_kernel(const __grid_constant__ MatmulArgs p) {
  let_next_kernel_start();
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= p.rows) return;
  const Factors of_row = row_factors(p, row, kHasRowScales);
  wait_for_previous_kernel();
  const int64_t of_split = static_cast<int64_t>(p.tokens) * p.rows;
  for (int token = static_cast<int>(blockIdx.y); token < p.tokens; token += static_cast<int>(gridDim.y)) {
    const int64_t at = static_cast<int64_t>(token) * p.rows + row;
    const auto* from = static_cast<const Sum*>(p.workspace) + at;
    Sum sum = 0;
#pragma unroll 4
    for (int split = 0; split < p.splits; ++split) sum += from[split * of_split];
    finish(p, token, at, sum, of_row);
  }
}

template <int kBits, int kGroup, int kTokens, bool kInt8>
void launch(const MatmulArgs& args, const TileGrid& grid, CudaStream stream) {
  launch_kernel(tile_matmul_kernel<kBits, kGroup, kTokens, kInt8>, args,
                {num_blocks(args.rows, matmul_rows(kBits, kGroup, kTokens)), num_blocks(args.tokens, kTokens),
                 static_cast<unsigned>(args.splits)},
                kThreads, matmul_shared_bytes(kBits, kGroup, kTokens, kInt8), grid.overlaps, stream, "tile_matmul");
}

}  // namespace

bool launch_tile_matmul(int bits, int group, bool int8, const MatmulArgs& args, const TileGrid& grid,
                        CudaStream stream) {
#define CRUMB_TILE_MATMUL(BITS, GROUP, INT8)             \
  if (bits == BITS && group == GROUP && int8 == INT8) {  \
    if (grid.tokens == 32)                               \
      launch<BITS, GROUP, 32, INT8>(args, grid, stream); \
    else                                                 \
      launch<BITS, GROUP, 64, INT8>(args, grid, stream); \
    return true;                                         \
  }
  CRUMB_MATMUL_FORMS(CRUMB_TILE_MATMUL)
#undef CRUMB_TILE_MATMUL
  return false;
}

void launch_add_splits(bool int_sums, bool has_row_scales, const MatmulArgs& args, CudaStream stream) {
  const dim3 grid{num_blocks(args.rows, 256), static_cast<unsigned>(args.tokens < 1024 ? args.tokens : 1024), 1};
  auto* kernel = int_sums ? add_splits_kernel<int, true>
                          : (has_row_scales ? add_splits_kernel<float, true> : add_splits_kernel<float, false>);
  launch_kernel(kernel, args, grid, 256, 0, true, stream, "add_splits");
}

}  // namespace crumb::kernels
