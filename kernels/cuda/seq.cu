#include "kernels/cuda/device.cuh"
#include "kernels/cuda/training.h"

namespace crumb::kernels {
namespace {

using namespace device;

/// A thread takes N neighbours of one group.
template <class T, int N>
__global__ void __launch_bounds__(256)
    seq_forward_kernel(const float* w, const float* scale, int64_t n, int64_t group_cols, T* y, uint8_t* codes) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (i >= n) return;
  const float s = round_scale(scale[i / group_cols]);
  const auto in = *reinterpret_cast<const Pack<float, N>*>(w + i);
  if (y != nullptr) {
    Pack<T, N> out;
#pragma unroll
    for (int j = 0; j < N; ++j) out.at[j] = from_float<T>(seq_nearest_level(in.at[j], s));
    *reinterpret_cast<Pack<T, N>*>(y + i) = out;
  }
  if (codes != nullptr) {
    Pack<uint8_t, N> out;
#pragma unroll
    for (int j = 0; j < N; ++j) out.at[j] = static_cast<uint8_t>(seq_code(in.at[j], s));
    *reinterpret_cast<Pack<uint8_t, N>*>(codes + i) = out;
  }
}

/// A block takes a group.
template <class T>
__global__ void __launch_bounds__(256)
    seq_backward_kernel(const float* w, const float* scale, const T* grad_y, int64_t group_cols, bool passes,
                        float* grad_w, float* grad_log_scale) {
  __shared__ double shared[256 / kWarp];
  const float s = round_scale(scale[blockIdx.x]), reach = s * kSeqRange;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * group_cols;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < group_cols; i += blockDim.x) {
    const float x = w[first + i], g = to_float(grad_y[first + i]), level = seq_nearest_level(x, s);
    const bool inside = fabsf(x) <= reach;
    sum += g * (inside ? level - x : level);
    grad_w[first + i] = passes || inside ? g : 0.0f;
  }
  const double total = block_sum(static_cast<double>(sum), shared);
  if (threadIdx.x == 0) grad_log_scale[blockIdx.x] = static_cast<float>(total);
}

}  // namespace

template <class T>
void seq_forward(const float* w, const float* scale, int64_t rows, int64_t cols, int64_t group_size, T* y,
                 uint8_t* codes, CudaStream stream) {
  const int64_t n = rows * cols;
  if (n == 0) return;
  if (fits_packs<4>(group_size, w, y, codes))
    seq_forward_kernel<T, 4><<<num_blocks(n / 4, 256), 256, 0, stream>>>(w, scale, n, group_size, y, codes);
  else
    seq_forward_kernel<T, 1><<<num_blocks(n, 256), 256, 0, stream>>>(w, scale, n, group_size, y, codes);
  check_launch("seq_forward");
}

template <class T>
void seq_backward(const float* w, const float* scale, const T* grad_y, int64_t rows, int64_t cols, int64_t group_size,
                  OutsideGradient outside, float* grad_w, float* grad_log_scale, CudaStream stream) {
  const int64_t groups = rows * (cols / group_size);
  if (groups == 0) return;
  seq_backward_kernel<<<static_cast<unsigned>(groups), block_threads(group_size, 8, 256), 0, stream>>>(
      w, scale, grad_y, group_size, outside == OutsideGradient::ste, grad_w, grad_log_scale);
  check_launch("seq_backward");
}

#define CRUMB_SEQ(T)                                                                                                   \
  template void seq_forward(const float*, const float*, int64_t, int64_t, int64_t, T*, uint8_t*, CudaStream);          \
  template void seq_backward(const float*, const float*, const T*, int64_t, int64_t, int64_t, OutsideGradient, float*, \
                             float*, CudaStream);
CRUMB_SEQ(float)
CRUMB_SEQ(Bf16)
#undef CRUMB_SEQ

}  // namespace crumb::kernels
