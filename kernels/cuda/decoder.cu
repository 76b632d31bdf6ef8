// A pass of a decoder outside of products with packed weights: embedding, norms with the sum before them, rotation and
// the cache of keys and values, attention, gate, products with dense weights. One clear kernel each.
#include "kernels/cuda/decoder.h"

#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/cuda/device.cuh"

namespace crumb::kernels {
namespace {

using namespace device;

constexpr int kThreads = 256;

__device__ float to_float(Half x) { return __half2float(__ushort_as_half(x.bits)); }
template <class T>
__device__ T rounded(float x) {
  if constexpr (std::is_same_v<T, Half>)
    return {__half_as_ushort(__float2half_rn(x))};
  else
    return from_float<T>(x);
}

/// 8 neighbours as floats; the address is a multiple of 8 of them.
template <class T>
__device__ void load8(const T* from, float (&to)[8]) {
  constexpr int kAtOnce = 16 / sizeof(T);
#pragma unroll
  for (int part = 0; part < 8 / kAtOnce; ++part) {
    const auto values = reinterpret_cast<const Pack<T, kAtOnce>*>(from)[part];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if constexpr (std::is_same_v<T, Half>)
        to[part * kAtOnce + i] = to_float(values.at[i]);
      else
        to[part * kAtOnce + i] = device::to_float(values.at[i]);
    }
  }
}
template <class T>
__device__ float load1(const T* from) {
  if constexpr (std::is_same_v<T, Half>)
    return to_float(*from);
  else
    return device::to_float(*from);
}

// --- embedding: a block takes a token -------------------------------------------------------------------------------

template <class W>
__global__ void __launch_bounds__(kThreads) embed_kernel(const W* weights, const int32_t* ids, int cols, float* out) {
  const W* row = weights + static_cast<int64_t>(ids[blockIdx.x]) * cols;
  float* to = out + static_cast<int64_t>(blockIdx.x) * cols;
  for (int i = threadIdx.x; i < cols; i += blockDim.x) to[i] = load1(row + i);
}

// --- sum and norm: a block takes a row ------------------------------------------------------------------------------

template <class Out>
__global__ void __launch_bounds__(kThreads)
    add_rms_norm_kernel(float* sum, const float* addend, const float* weight, float eps, int cols, Out* y) {
  __shared__ float shared[kThreads / kWarp];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * cols;
  float squares = 0;
  for (int i = threadIdx.x; i < cols; i += blockDim.x) {
    float value = sum[first + i];
    if (addend != nullptr) {
      value += addend[first + i];
      sum[first + i] = value;
    }
    squares += value * value;
  }
  const float inverse = 1.0f / sqrtf(block_sum(squares, shared) / static_cast<float>(cols) + eps);
  // A thread reads again what it wrote itself.
  for (int i = threadIdx.x; i < cols; i += blockDim.x)
    y[first + i] = from_float<Out>(sum[first + i] * inverse * weight[i]);
}

// --- heads: a warp takes one of a token -----------------------------------------------------------------------------

constexpr int kHeadWarps = 4;

/// x [dim] of a warp, normed in place.
__device__ void norm_head(float* x, const float* weight, int dim, float eps, int lane) {
  float squares = 0;
  for (int i = lane; i < dim; i += kWarp) squares += x[i] * x[i];
  for (int step = kWarp / 2; step > 0; step /= 2) squares += __shfl_xor_sync(~0u, squares, step);
  const float inverse = 1.0f / sqrtf(squares / static_cast<float>(dim) + eps);
  for (int i = lane; i < dim; i += kWarp) x[i] = x[i] * inverse * weight[i];
  __syncwarp();
}

template <class C>
__global__ void __launch_bounds__(kHeadWarps* kWarp)
    prepare_heads_kernel(const __grid_constant__ PreparedHeads p, const __grid_constant__ CacheView cache) {
  __shared__ float heads[kHeadWarps][kMostCacheDim];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int token = static_cast<int>(blockIdx.y), dim = static_cast<int>(p.dim), half = static_cast<int>(p.half);
  const int64_t head = static_cast<int64_t>(blockIdx.x) * kHeadWarps + warp;  // queries, keys, values
  if (head >= p.heads + 2 * p.kv_heads) return;
  const bool is_query = head < p.heads, is_value = head >= p.heads + p.kv_heads;
  const int64_t kv_head = head - p.heads - (is_value ? p.kv_heads : 0);
  const HeadRows& rows = is_query ? p.q : is_value ? p.v : p.k;
  float* from = rows.at + token * rows.stride + (is_query ? head : kv_head) * dim;
  float* x = heads[warp];
  for (int i = lane; i < dim; i += kWarp) x[i] = from[i];
  __syncwarp();
  const int position = cache.positions[token];
  if (!is_value) {
    const float* norm = is_query ? p.q_norm : p.k_norm;
    if (norm != nullptr && p.norm_is_before_rope) norm_head(x, norm, dim, p.eps, lane);
    for (int i = lane; i < half; i += kWarp) {
      const int64_t angle = static_cast<int64_t>(position) * half + i;
      const float c = p.cos[angle], s = p.sin[angle], a = x[i], b = x[half + i];
      x[i] = a * c - b * s;
      x[half + i] = b * c + a * s;
    }
    __syncwarp();
    if (norm != nullptr && !p.norm_is_before_rope) norm_head(x, norm, dim, p.eps, lane);
  }
  if (is_query) {
    for (int i = lane; i < dim; i += kWarp) from[i] = x[i];
    return;
  }
  C* panel = reinterpret_cast<C*>(cache.sequences[token]) + position / kCachePanel * cache.panel_stride + cache.offset +
             kv_head * 2 * kCachePanel * dim;
  const int place = position % static_cast<int>(kCachePanel);
  if (is_value) {
    for (int i = lane; i < dim; i += kWarp) panel[kCachePanel * dim + place * dim + i] = rounded<C>(x[i]);
  } else {
    for (int i = lane; i < dim; i += kWarp) panel[i / 8 * kCachePanel * 8 + place * 8 + i % 8] = rounded<C>(x[i]);
  }
}

// --- attention: a block takes the heads of a token that share a key/value head
// ----------------------------------------

constexpr int kAtOnce = 8;  // heads for which a key is read once

struct AttendArgs {
  const float* q;
  int64_t q_stride;
  int32_t group, dim, window;  // group: heads that share a key/value head
  float scale;
  void* out;
  float* workspace;  // [tokens, heads, splits, dim + 2]: of gridDim.z splits, sums of values, of weights, and the most
  CacheView cache;
};

/// head: of all tokens.
__device__ int64_t split_place(const AttendArgs& p, int64_t head, unsigned split) {
  return (head * gridDim.z + split) * (p.dim + 2);
}

/// Turns of 256 keys: each thread has the scores of one key, then each has a column of the values for every so many
/// keys. Where gridDim.z > 1, a block takes every so many turns.
template <class C, class Out>
__global__ void __launch_bounds__(kThreads, 2) attend_kernel(const __grid_constant__ AttendArgs p) {
  constexpr int kWarps = kThreads / kWarp;
  __shared__ __align__(16) float q[kAtOnce][kMostCacheDim];
  __shared__ float weights[kAtOnce][kThreads];
  __shared__ float parts[kAtOnce][kWarps], sums[kAtOnce];
  const int t = static_cast<int>(threadIdx.x), warp = t / kWarp, token = static_cast<int>(blockIdx.y);
  const int dim = p.dim, slices = kThreads / dim, slice = t / dim, column = t % dim;
  const int position = p.cache.positions[token], first = p.window == 0 ? 0 : max(0, position - p.window + 1);
  const int64_t kv_head = blockIdx.x, row = gridDim.x * static_cast<int64_t>(p.group) * dim;
  const C* keys =
      reinterpret_cast<const C*>(p.cache.sequences[token]) + p.cache.offset + kv_head * 2 * kCachePanel * dim;
  const C* values = keys + kCachePanel * dim;

#pragma unroll 1
  for (int head = 0; head < p.group; head += kAtOnce) {
    const int count = min(kAtOnce, p.group - head);
    const int64_t at = (kv_head * p.group + head) * dim;
    for (int i = t; i < count * dim; i += kThreads) q[i / dim][i % dim] = p.q[token * p.q_stride + at + i] * p.scale;
    __syncthreads();
    float most[kAtOnce], sum[kAtOnce], out[kAtOnce];
#pragma unroll
    for (int g = 0; g < kAtOnce; ++g) most[g] = -INFINITY, sum[g] = 0, out[g] = 0;
    const int begin = (first / kThreads + static_cast<int>(blockIdx.z)) * kThreads;
    for (int turn = begin; turn <= position; turn += kThreads * static_cast<int>(gridDim.z)) {
      const int key = turn + t;
      const bool is_seen = key >= first && key <= position;
      float score[kAtOnce] = {};
      const int read = min(max(key, first), position);  // by a thread without a key, too: all stay together
      const C* k = keys + read / kCachePanel * p.cache.panel_stride + read % kCachePanel * 8;
#pragma unroll 1
      for (int i = 0; i < dim; i += 8, k += kCachePanel * 8) {
        float x[8];
        load8(k, x);
#pragma unroll
        for (int g = 0; g < kAtOnce; ++g) {
          if (g >= count) break;
#pragma unroll
          for (int j = 0; j < 8; ++j) score[g] += q[g][i + j] * x[j];
        }
      }
#pragma unroll
      for (int g = 0; g < kAtOnce; ++g) {
        if (g >= count) break;
        float best = is_seen ? score[g] : -INFINITY;
        for (int step = kWarp / 2; step > 0; step /= 2) best = fmaxf(best, __shfl_xor_sync(~0u, best, step));
        if (t % kWarp == 0) parts[g][warp] = best;
      }
      __syncthreads();
#pragma unroll
      for (int g = 0; g < kAtOnce; ++g) {
        if (g >= count) break;
        float best = most[g];
        for (int w = 0; w < kWarps; ++w) best = fmaxf(best, parts[g][w]);
        const float factor = expf(most[g] - best), weight = is_seen ? expf(score[g] - best) : 0.0f;
        most[g] = best;
        sum[g] = sum[g] * factor + weight;
        out[g] *= factor;
        weights[g][t] = weight;
      }
      __syncthreads();
      const int end = min(kThreads, position - turn + 1);
      if (slice < slices) {
        for (int j = max(0, first - turn) / slices * slices + slice; j < end; j += slices) {
          const int at_key = turn + j;
          if (at_key < first) continue;
          const float v =
              load1(values + at_key / kCachePanel * p.cache.panel_stride + at_key % kCachePanel * dim + column);
#pragma unroll
          for (int g = 0; g < kAtOnce; ++g) {
            if (g >= count) break;
            out[g] += weights[g][j] * v;
          }
        }
      }
    }
    __syncthreads();
#pragma unroll
    for (int g = 0; g < kAtOnce; ++g) {
      if (g >= count) break;
      weights[g][t] = out[g];
      const float total = block_sum(sum[g], parts[g]);
      if (t != 0) continue;
      sums[g] = total;
      if (gridDim.z == 1) continue;
      float* to = p.workspace + split_place(p, token * row / dim + at / dim + g, blockIdx.z) + dim;
      to[0] = total;
      to[1] = most[g];
    }
    __syncthreads();
    for (int i = t; i < count * dim; i += kThreads) {
      const int g = i / dim;
      float value = 0;
      for (int s = 0; s < slices; ++s) value += weights[g][s * dim + i % dim];
      if (gridDim.z == 1)
        static_cast<Out*>(p.out)[token * row + at + i] = from_float<Out>(value / sums[g]);
      else
        p.workspace[split_place(p, token * row / dim + at / dim + g, blockIdx.z) + i % dim] = value;
    }
    __syncthreads();
  }
}

/// A block takes a head of a token, and adds its splits in their order.
template <class Out>
__global__ void __launch_bounds__(kMostCacheDim)
    add_attention_kernel(const float* splits, int count, int dim, Out* out) {
  const int64_t head = blockIdx.x;
  const int i = static_cast<int>(threadIdx.x), step = dim + 2;
  const float* of_head = splits + head * count * step;
  float best = -INFINITY;
  for (int s = 0; s < count; ++s) best = fmaxf(best, of_head[s * step + dim + 1]);
  float value = 0, sum = 0;
  for (int s = 0; s < count; ++s) {
    const float most = of_head[s * step + dim + 1];
    if (most == -INFINITY) continue;  // no keys
    const float weight = expf(most - best);
    sum += weight * of_head[s * step + dim];
    if (i < dim) value += weight * of_head[s * step + i];
  }
  if (i < dim) out[head * dim + i] = from_float<Out>(value / sum);
}

// --- gate -----------------------------------------------------------------------------------------------------------

template <class Out>
__global__ void __launch_bounds__(kThreads) swiglu_rows_kernel(HeadRows gate, HeadRows up, int64_t cols, Out* y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, token = blockIdx.y;
  if (i >= cols) return;
  const float x = gate.at[token * gate.stride + i];
  y[token * cols + i] = from_float<Out>(x / (1.0f + expf(-x)) * up.at[token * up.stride + i]);
}

// --- dense products: a warp takes a row of the weights for some tokens ----------------------------------------------

constexpr int kDenseTokens = 8, kDenseWarps = 4;

/// takes_eight: rows begin at multiples of 16 bytes. Of absent tokens the last one is multiplied in their place.
template <class W, class X, int kTokens>
__global__ void __launch_bounds__(kDenseWarps* kWarp)
    dense_matmul_kernel(const X* x, const W* weights, const float* bias, int tokens, int rows, int cols,
                        bool takes_eight, float* y) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row = static_cast<int>(blockIdx.x) * kDenseWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (row >= rows) return;
  const int first = static_cast<int>(blockIdx.y) * kTokens;
  const W* w = weights + static_cast<int64_t>(row) * cols;
  const X* of_token[kTokens];
#pragma unroll
  for (int n = 0; n < kTokens; ++n) of_token[n] = x + static_cast<int64_t>(min(first + n, tokens - 1)) * cols;
  float sum[kTokens] = {};
  if (takes_eight) {
    for (int i = 8 * lane; i < cols; i += 8 * kWarp) {
      float a[8];
      load8(w + i, a);
#pragma unroll
      for (int n = 0; n < kTokens; ++n) {
        float b[8];
        load8(of_token[n] + i, b);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[n] += a[j] * b[j];
      }
    }
  } else {
    for (int i = lane; i < cols; i += kWarp) {
      const float a = load1(w + i);
#pragma unroll
      for (int n = 0; n < kTokens; ++n) sum[n] += a * load1(of_token[n] + i);
    }
  }
#pragma unroll
  for (int n = 0; n < kTokens; ++n) {
    float total = sum[n];
    for (int step = kWarp / 2; step > 0; step /= 2) total += __shfl_xor_sync(~0u, total, step);
    if (lane == 0 && first + n < tokens)
      y[static_cast<int64_t>(first + n) * rows + row] = total + (bias == nullptr ? 0.0f : bias[row]);
  }
}

}  // namespace

bool has_code_for_device() {
  cudaFuncAttributes attributes;
  const bool found =
      cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(embed_kernel<float>)) == cudaSuccess;
  if (!found) cudaGetLastError();  // it is not the next launch's
  return found;
}

template <class W>
void embed(const W* weights, const int32_t* ids, int64_t tokens, int64_t cols, float* out, CudaStream stream) {
  if (tokens == 0) return;
  embed_kernel<<<static_cast<unsigned>(tokens), block_threads(cols, 4, kThreads), 0, stream>>>(
      weights, ids, static_cast<int>(cols), out);
  check_launch("embed");
}

template <class Out>
void add_rms_norm(float* sum, const float* addend, const float* weight, float eps, int64_t rows, int64_t cols, Out* y,
                  CudaStream stream) {
  if (rows == 0) return;
  add_rms_norm_kernel<<<static_cast<unsigned>(rows), block_threads(cols, 4, kThreads), 0, stream>>>(
      sum, addend, weight, eps, static_cast<int>(cols), y);
  check_launch("add_rms_norm");
}

template <class C>
void prepare_heads(const PreparedHeads& args, const CacheView& cache, CudaStream stream) {
  if (args.tokens == 0) return;
  const dim3 grid(num_blocks(args.heads + 2 * args.kv_heads, kHeadWarps), static_cast<unsigned>(args.tokens));
  prepare_heads_kernel<C><<<grid, kHeadWarps * device::kWarp, 0, stream>>>(args, cache);
  check_launch("prepare_heads");
}

int64_t attention_splits(int64_t tokens, int64_t kv_heads, int64_t multiprocessors) {
  constexpr int64_t kMost = 16;
  return std::clamp<int64_t>(2 * multiprocessors / std::max<int64_t>(1, tokens * kv_heads), 1, kMost);
}

template <class C, class Out>
void attend(const HeadRows& q, int64_t tokens, int64_t heads, int64_t kv_heads, int64_t dim, int64_t window,
            const CacheView& cache, int64_t splits, float* workspace, Out* out, CudaStream stream) {
  if (tokens == 0) return;
  const AttendArgs args{.q = q.at,
                        .q_stride = q.stride,
                        .group = static_cast<int32_t>(heads / kv_heads),
                        .dim = static_cast<int32_t>(dim),
                        .window = static_cast<int32_t>(window),
                        .scale = 1.0f / std::sqrt(static_cast<float>(dim)),
                        .out = out,
                        .workspace = workspace,
                        .cache = cache};
  const dim3 grid(static_cast<unsigned>(kv_heads), static_cast<unsigned>(tokens), static_cast<unsigned>(splits));
  attend_kernel<C, Out><<<grid, kThreads, 0, stream>>>(args);
  check_launch("attend");
  if (splits == 1) return;
  add_attention_kernel<<<static_cast<unsigned>(tokens * heads), block_threads(dim, 1, kMostCacheDim), 0, stream>>>(
      workspace, static_cast<int>(splits), static_cast<int>(dim), out);
  check_launch("add_attention");
}

template <class Out>
void swiglu_rows(const HeadRows& gate, const HeadRows& up, int64_t tokens, int64_t cols, Out* y, CudaStream stream) {
  if (tokens == 0) return;
  const dim3 grid(num_blocks(cols, kThreads), static_cast<unsigned>(tokens));
  swiglu_rows_kernel<<<grid, kThreads, 0, stream>>>(gate, up, cols, y);
  check_launch("swiglu_rows");
}

template <class W, class X>
void dense_matmul(const X* x, const W* weights, const float* bias, int64_t tokens, int64_t rows, int64_t cols, float* y,
                  CudaStream stream) {
  if (tokens == 0) return;
  const auto is_aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  auto* kernel = tokens == 1 ? dense_matmul_kernel<W, X, 1> : dense_matmul_kernel<W, X, kDenseTokens>;
  const dim3 grid(num_blocks(rows, kDenseWarps), tokens == 1 ? 1 : num_blocks(tokens, kDenseTokens));
  kernel<<<grid, kDenseWarps * device::kWarp, 0, stream>>>(x, weights, bias, static_cast<int>(tokens),
                                                           static_cast<int>(rows), static_cast<int>(cols),
                                                           cols % 8 == 0 && is_aligned(x) && is_aligned(weights), y);
  check_launch("dense_matmul");
}

template void embed(const float*, const int32_t*, int64_t, int64_t, float*, CudaStream);
template void embed(const Bf16*, const int32_t*, int64_t, int64_t, float*, CudaStream);
template void embed(const Half*, const int32_t*, int64_t, int64_t, float*, CudaStream);
template void prepare_heads<float>(const PreparedHeads&, const CacheView&, CudaStream);
template void prepare_heads<Half>(const PreparedHeads&, const CacheView&, CudaStream);
#define CRUMB_OUT(Out)                                                                                                 \
  template void add_rms_norm(float*, const float*, const float*, float, int64_t, int64_t, Out*, CudaStream);           \
  template void attend<float>(const HeadRows&, int64_t, int64_t, int64_t, int64_t, int64_t, const CacheView&, int64_t, \
                              float*, Out*, CudaStream);                                                               \
  template void attend<Half>(const HeadRows&, int64_t, int64_t, int64_t, int64_t, int64_t, const CacheView&, int64_t,  \
                             float*, Out*, CudaStream);                                                                \
  template void swiglu_rows(const HeadRows&, const HeadRows&, int64_t, int64_t, Out*, CudaStream);
CRUMB_OUT(float)
CRUMB_OUT(Bf16)
#undef CRUMB_OUT
#define CRUMB_DENSE(W, X) \
  template void dense_matmul(const X*, const W*, const float*, int64_t, int64_t, int64_t, float*, CudaStream);
CRUMB_DENSE(Bf16, Bf16)
CRUMB_DENSE(Half, Bf16)
CRUMB_DENSE(float, Bf16)
CRUMB_DENSE(Half, float)
CRUMB_DENSE(float, float)
#undef CRUMB_DENSE

}  // namespace crumb::kernels
