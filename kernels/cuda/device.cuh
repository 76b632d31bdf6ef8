// What the kernels share.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/cuda/stream.h"

namespace crumb::kernels {

namespace device {

constexpr int kWarp = 32;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }

template <class T>
__device__ T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline Bf16 from_float<Bf16>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}

/// N neighbours that are loaded and stored at once; the address must be a multiple of the size.
template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
  T at[N];
};

/// The sum over the block, in every thread. The block is a multiple of a warp; `shared` holds a value a warp and is
/// free again afterwards.
template <class T>
__device__ T block_sum(T value, T* shared) {
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, warps = static_cast<int>(blockDim.x) / kWarp;
  if (warps == 1) return value;
  if (threadIdx.x % kWarp == 0) shared[warp] = value;
  __syncthreads();
  T sum = 0;
  for (int i = 0; i < warps; ++i) sum += shared[i];
  __syncthreads();
  return sum;
}

}  // namespace device

/// Threads of a block for n values in a row: whole warps, of which each thread takes some values.
inline int block_threads(int64_t n, int64_t values_a_thread, int at_most) {
  int threads = device::kWarp;
  while (threads < at_most && threads * values_a_thread < n) threads *= 2;
  return threads;
}

/// Whether n values at these addresses can be taken N at once.
template <int N, class... T>
bool fits_packs(int64_t n, const T*... pointers) {
  return n % N == 0 && ((reinterpret_cast<uintptr_t>(pointers) % (N * sizeof(T)) == 0) && ...);
}

inline unsigned num_blocks(int64_t n, int64_t of_each) { return static_cast<unsigned>((n + of_each - 1) / of_each); }

}  // namespace crumb::kernels
