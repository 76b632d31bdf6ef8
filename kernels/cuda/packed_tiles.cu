// Packed tiles made from codes, and taken apart; activations in int8. packed_tiles.h has the layout.
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/tiles.cuh"

namespace crumb::kernels {
namespace {

using namespace device;

/// A thread takes a word: one of four of a lane.
template <int kBits>
__global__ void __launch_bounds__(256)
    pack_codes_kernel(const uint8_t* codes, int64_t rows, int64_t cols, int64_t blocks, int64_t words, uint32_t* out) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= words) return;
  const int64_t tile = at / kTileWords, block = tile / tiles_per_block(kBits);
  const int in_tile = static_cast<int>(at % kTileWords);
  const int64_t first_row = block / blocks * kTileRows,
                first_col = block % blocks * kTileBlockCols + tile % tiles_per_block(kBits) * tile_cols(kBits);
  uint32_t word = 0;
#pragma unroll
  for (int bit = 0; bit < 32; bit += kBits) {
    const TileCell cell = tile_cell(kBits, in_tile / 4, in_tile % 4, bit);
    const int64_t row = first_row + cell.row, col = first_col + cell.col;
    if (row < rows && col < cols) word |= (codes[row * cols + col] & ((1u << kBits) - 1)) << bit;
  }
  out[at] = word;
}

/// A thread takes a pair of rows. before: columns of a group of `scales`; after: of a packed one.
__global__ void __launch_bounds__(256)
    pack_scales_kernel(const float* scales, int64_t rows, int64_t cols, int64_t groups, int64_t before, int64_t after,
                       int64_t words, uint32_t* out) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= words) return;
  const int64_t group = at / 8 % groups, row = at / 8 / groups * kTileRows + at % 8;
  const auto scale_bits = [&](int64_t r) {
    return r < rows && group * after < cols
               ? static_cast<uint32_t>(from_float<Bf16>(scales[r * (cols / before) + group * after / before]).bits)
               : 0;
  };
  out[at] = scale_bits(row) | scale_bits(row + 8) << 16;
}

/// A warp takes a tile, a lane 8 neighbouring columns of two rows, a slice at a time.
template <int kBits>
__global__ void __launch_bounds__(256)
    dequantize_kernel(const uint4* codes, const uint32_t* scales, int64_t rows, int64_t cols, int64_t blocks,
                      int64_t groups, int64_t tiles, int step, int zero, bool is_aligned, Bf16* out) {
  const int64_t tile = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (tile >= tiles) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  const int64_t block = tile / tiles_per_block(kBits), row_tile = block / blocks;
  const int64_t first_col = block % blocks * kTileBlockCols + tile % tiles_per_block(kBits) * tile_cols(kBits);
  const uint4 w = codes[tile * kWarp + lane];
#pragma unroll
  for (int slice = 0; slice < tile_slices(kBits); ++slice) {
    const int64_t col = first_col + slice * kTileSliceCols + 8 * t;
    if (col >= cols) break;
    const int64_t group = groups == 1 ? 0 : col / (blocks * kTileBlockCols / groups);
    const uint32_t pair = scales[(row_tile * groups + group) * 8 + g];
#pragma unroll
    for (int high_row = 0; high_row < 2; ++high_row) {
      const int64_t row = row_tile * kTileRows + g + 8 * high_row;
      if (row >= rows) break;
      const float scale = scale_of(pair, high_row);
      alignas(16) Bf16 values[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const TilePlace at = tile_place(kBits, 8 * high_row, kTileSliceCols * slice + i);
        const uint32_t code = word_of(w, at.word) >> at.bit & ((1u << kBits) - 1);
        values[i] = from_float<Bf16>(static_cast<float>(step * static_cast<int>(code) - zero) * scale);
      }
      Bf16* to = out + row * cols + col;
      if (is_aligned) {
        *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(values);
      } else {
        for (int i = 0; i < 8 && col + i < cols; ++i) to[i] = values[i];
      }
    }
  }
}

/// A block takes a token: twice over its columns, whose second reading comes from the cache.
__global__ void __launch_bounds__(256)
    round_to_int8_kernel(const Bf16* x, int64_t cols, int64_t x_stride, int64_t blocks, int8_t* codes, float* scales,
                         int32_t* sums, int32_t* block_sums) {
  __shared__ float largest_of[256 / kWarp];
  __shared__ int sum_of[256 / kWarp];
  let_next_kernel_start();
  wait_for_previous_kernel();
  const int64_t token = blockIdx.x;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  x += token * x_stride;
  codes += token * blocks * kTileBlockCols;
  uint32_t largest = 0;  // magnitudes order as integers, what is not finite above all
  for (int64_t col = threadIdx.x; col < cols; col += blockDim.x)
    largest = max(largest, static_cast<uint32_t>(x[col].bits & 0x7fff) << 16);
  largest = __reduce_max_sync(~0u, largest);
  if (lane == 0) largest_of[warp] = __uint_as_float(largest);
  __syncthreads();
  for (int i = 0; i < warps; ++i) largest = max(largest, __float_as_uint(largest_of[i]));
  const bool is_finite = largest < 0x7f800000u;
  const float scale = is_finite ? __fdiv_rn(__uint_as_float(largest), 127.0f) : NAN;
  const bool has_codes = scale > 0;  // not NaN, not zeros, not so small that the quotient is
  int total = 0;
  for (int64_t block = warp; block < blocks; block += warps) {  // a warp takes 128 columns, a lane four
    const int64_t position = block * kTileBlockCols + 4 * lane;
    uint32_t word = 0;
    int sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t c = int8_column(position + i);
      const float quotient = has_codes && c < cols ? __fdiv_rn(to_float(x[c]), scale) : 0.0f;
      const int code = max(-128, min(127, __float2int_rn(quotient)));
      sum += code;
      word |= (static_cast<uint32_t>(code) & 0xff) << (8 * i);
    }
    reinterpret_cast<uint32_t*>(codes + block * kTileBlockCols)[lane] = word;
    sum = __reduce_add_sync(~0u, sum);
    if (lane == 0) block_sums[token * blocks + block] = sum;
    total += sum;
  }
  if (lane == 0) sum_of[warp] = total;
  __syncthreads();
  if (threadIdx.x != 0) return;
  total = 0;
  for (int i = 0; i < warps; ++i) total += sum_of[i];
  sums[token] = total;
  scales[token] = has_codes ? scale : is_finite ? 0.0f : NAN;
}

}  // namespace

void pack_tiles(const PackedShape& shape, const uint8_t* codes, const float* scales, uint32_t* code_words,
                uint32_t* scale_words, CudaStream stream) {
  const PackedShape packed = packed_shape(shape);
  const int64_t words = packed.code_words(), pairs = packed.scale_words();
  auto* kernel = shape.bits == 2 ? pack_codes_kernel<2> : shape.bits == 4 ? pack_codes_kernel<4> : pack_codes_kernel<8>;
  kernel<<<num_blocks(words, 256), 256, 0, stream>>>(codes, shape.rows, shape.cols, packed.blocks(), words, code_words);
  check_launch("pack_codes");
  pack_scales_kernel<<<num_blocks(pairs, 256), 256, 0, stream>>>(
      scales, shape.rows, shape.cols, packed.groups(), shape.group_cols, packed.group_cols, pairs, scale_words);
  check_launch("pack_scales");
}

void dequantize(const PackedMatrix& matrix, Bf16* out, CudaStream stream) {
  const PackedShape& s = matrix.shape;
  const int64_t tiles = s.code_words() / kTileWords;
  const bool is_aligned = s.cols % 8 == 0 && reinterpret_cast<uintptr_t>(out) % 16 == 0;
  auto* kernel = s.bits == 2 ? dequantize_kernel<2> : s.bits == 4 ? dequantize_kernel<4> : dequantize_kernel<8>;
  kernel<<<num_blocks(tiles * device::kWarp, 256), 256, 0, stream>>>(
      reinterpret_cast<const uint4*>(matrix.codes), matrix.scales, s.rows, s.cols, s.blocks(), s.groups(), tiles,
      s.step, s.zero, is_aligned, out);
  check_launch("dequantize");
}

void round_to_int8(const Bf16* x, int64_t tokens, int64_t cols, int64_t x_stride, const PackedTokens& out,
                   CudaStream stream) {
  if (tokens == 0) return;
  round_to_int8_kernel<<<static_cast<unsigned>(tokens), block_threads(cols, 8, 256), 0, stream>>>(
      x, cols, x_stride, (cols + kTileBlockCols - 1) / kTileBlockCols, out.codes, out.scales, out.sums, out.block_sums);
  check_launch("round_to_int8");
}

}  // namespace crumb::kernels
