// Norm, rotation, gate and optimizer: bound by memory, so each reads its inputs once.
#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/training.h"

namespace crumb::kernels {
namespace {

using namespace device;

// --- RMS norm: a block takes a row (forward) or every so many rows (backward) ---------------------------------------

/// `squares`: what this thread has of their sum.
__device__ float inverse_rms(float squares, int cols, float eps, float* shared) {
  return 1.0f / sqrtf(block_sum(squares, shared) / static_cast<float>(cols) + eps);
}

template <class In, class Out>
__global__ void __launch_bounds__(256)
    rms_norm_forward_kernel(const In* x, const float* weight, float eps, int cols, Out* y) {
  __shared__ float shared[256 / kWarp];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * cols;
  float squares = 0;
  for (int i = threadIdx.x; i < cols; i += blockDim.x) squares += to_float(x[first + i]) * to_float(x[first + i]);
  const float inverse = inverse_rms(squares, cols, eps, shared);
  for (int i = threadIdx.x; i < cols; i += blockDim.x)
    y[first + i] = from_float<Out>(to_float(x[first + i]) * inverse * weight[i]);
}

template <class In, class Out>
__global__ void __launch_bounds__(256)
    rms_norm_backward_kernel(const In* x, const float* weight, const Out* grad_y, float eps, int64_t rows, int cols,
                             In* grad_x, float* parts) {
  __shared__ float shared[256 / kWarp];
  extern __shared__ float by_weight[];  // [cols], each column its thread's
  if (parts != nullptr)
    for (int i = threadIdx.x; i < cols; i += blockDim.x) by_weight[i] = 0;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t first = row * cols;
    float squares = 0, products = 0;
    for (int i = threadIdx.x; i < cols; i += blockDim.x) {
      const float value = to_float(x[first + i]);
      squares += value * value;
      products += value * to_float(grad_y[first + i]) * weight[i];
    }
    const float inverse = inverse_rms(squares, cols, eps, shared);
    const float pull = block_sum(products, shared) / static_cast<float>(cols) * inverse * inverse;
    for (int i = threadIdx.x; i < cols; i += blockDim.x) {
      const float value = to_float(x[first + i]), g = to_float(grad_y[first + i]);
      grad_x[first + i] = from_float<In>((g * weight[i] - value * pull) * inverse);
      if (parts != nullptr) by_weight[i] += g * value * inverse;
    }
  }
  if (parts != nullptr)
    for (int i = threadIdx.x; i < cols; i += blockDim.x)
      parts[static_cast<int64_t>(blockIdx.x) * cols + i] = by_weight[i];
}

// --- rotary embedding: a thread takes a pair, or what is copied at a pair's place -----------------------------------

template <class T>
__global__ void __launch_bounds__(256) rope_kernel(const T* x, const float* cos, const float* sin, int64_t rows,
                                                   int tokens, int heads, int head_dim, int half, float sign, T* y) {
  const int columns = half + (head_dim - 2 * half);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= rows * columns) return;
  const int64_t row = at / columns, first = row * head_dim;
  const int i = static_cast<int>(at % columns);
  if (i >= half) {
    y[first + half + i] = x[first + half + i];
    return;
  }
  const int64_t angle = row / heads % tokens * half + i;
  const float c = cos[angle], s = sin[angle] * sign, a = to_float(x[first + i]), b = to_float(x[first + half + i]);
  y[first + i] = from_float<T>(a * c - b * s);
  y[first + half + i] = from_float<T>(b * c + a * s);
}

// --- gate -----------------------------------------------------------------------------------------------------------

template <class T, int N>
__global__ void __launch_bounds__(256) swiglu_forward_kernel(const T* gate, const T* up, int64_t n, T* y) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (i >= n) return;
  const auto g = *reinterpret_cast<const Pack<T, N>*>(gate + i), u = *reinterpret_cast<const Pack<T, N>*>(up + i);
  Pack<T, N> out;
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float x = to_float(g.at[j]);
    out.at[j] = from_float<T>(x / (1.0f + expf(-x)) * to_float(u.at[j]));
  }
  *reinterpret_cast<Pack<T, N>*>(y + i) = out;
}

template <class T, int N>
__global__ void __launch_bounds__(256)
    swiglu_backward_kernel(const T* gate, const T* up, const T* grad_y, int64_t n, T* grad_gate, T* grad_up) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  if (i >= n) return;
  const auto g = *reinterpret_cast<const Pack<T, N>*>(gate + i), u = *reinterpret_cast<const Pack<T, N>*>(up + i),
             d = *reinterpret_cast<const Pack<T, N>*>(grad_y + i);
  Pack<T, N> by_gate, by_up;
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float x = to_float(g.at[j]), grad = to_float(d.at[j]), s = 1.0f / (1.0f + expf(-x));
    by_gate.at[j] = from_float<T>(grad * to_float(u.at[j]) * s * (1.0f + x * (1.0f - s)));
    by_up.at[j] = from_float<T>(grad * x * s);
  }
  *reinterpret_cast<Pack<T, N>*>(grad_gate + i) = by_gate;
  *reinterpret_cast<Pack<T, N>*>(grad_up + i) = by_up;
}

// --- AdamW ----------------------------------------------------------------------------------------------------------

__global__ void __launch_bounds__(256) adamw_kernel(AdamWStep step, int64_t n, int64_t cols, const float* row_factor,
                                                    const float* gradient, float* weight, float* m, float* v) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float factor = row_factor == nullptr ? 1.0f : row_factor[i / cols];
  const float g = gradient[i] * step.gradient_factor;
  const float first = step.beta1 * m[i] + (1.0f - step.beta1) * g,
              second = step.beta2 * v[i] + (1.0f - step.beta2) * g * g;
  m[i] = first;
  v[i] = second;
  weight[i] = weight[i] * (1.0f - step.decay * factor) -
              step.step_size * factor * first / (sqrtf(second) * step.root_correction + step.eps);
}

constexpr int64_t kRmsNormBlocks = 528;  // four for each of an H100's multiprocessors

}  // namespace

template <class In, class Out>
void rms_norm_forward(const In* x, const float* weight, float eps, int64_t rows, int64_t cols, Out* y,
                      CudaStream stream) {
  if (rows == 0) return;
  rms_norm_forward_kernel<<<static_cast<unsigned>(rows), block_threads(cols, 4, 256), 0, stream>>>(
      x, weight, eps, static_cast<int>(cols), y);
  check_launch("rms_norm_forward");
}

int64_t rms_norm_parts(int64_t rows) { return std::min(rows, kRmsNormBlocks); }

template <class In, class Out>
void rms_norm_backward(const In* x, const float* weight, const Out* grad_y, float eps, int64_t rows, int64_t cols,
                       In* grad_x, float* parts, CudaStream stream) {
  if (rows == 0) return;
  const int64_t blocks = parts == nullptr ? rows : rms_norm_parts(rows);
  rms_norm_backward_kernel<<<static_cast<unsigned>(blocks), block_threads(cols, 4, 256),
                             parts == nullptr ? 0 : static_cast<size_t>(cols) * sizeof(float), stream>>>(
      x, weight, grad_y, eps, rows, static_cast<int>(cols), grad_x, parts);
  check_launch("rms_norm_backward");
}

template <class T>
void rope(const T* x, const float* cos, const float* sin, int64_t batch, int64_t tokens, int64_t heads,
          int64_t head_dim, int64_t half, bool inverse, T* y, CudaStream stream) {
  const int64_t rows = batch * tokens * heads, n = rows * (head_dim - half);
  if (n == 0) return;
  rope_kernel<<<num_blocks(n, 256), 256, 0, stream>>>(x, cos, sin, rows, static_cast<int>(tokens),
                                                      static_cast<int>(heads), static_cast<int>(head_dim),
                                                      static_cast<int>(half), inverse ? -1.0f : 1.0f, y);
  check_launch("rope");
}

template <class T>
void swiglu_forward(const T* gate, const T* up, int64_t n, T* y, CudaStream stream) {
  if (n == 0) return;
  if (fits_packs<4>(n, gate, up, y))
    swiglu_forward_kernel<T, 4><<<num_blocks(n / 4, 256), 256, 0, stream>>>(gate, up, n, y);
  else
    swiglu_forward_kernel<T, 1><<<num_blocks(n, 256), 256, 0, stream>>>(gate, up, n, y);
  check_launch("swiglu_forward");
}

template <class T>
void swiglu_backward(const T* gate, const T* up, const T* grad_y, int64_t n, T* grad_gate, T* grad_up,
                     CudaStream stream) {
  if (n == 0) return;
  if (fits_packs<4>(n, gate, up, grad_y, grad_gate, grad_up))
    swiglu_backward_kernel<T, 4><<<num_blocks(n / 4, 256), 256, 0, stream>>>(gate, up, grad_y, n, grad_gate, grad_up);
  else
    swiglu_backward_kernel<T, 1><<<num_blocks(n, 256), 256, 0, stream>>>(gate, up, grad_y, n, grad_gate, grad_up);
  check_launch("swiglu_backward");
}

void adamw_update(const AdamWStep& step, int64_t rows, int64_t cols, const float* row_factor, const float* gradient,
                  float* weight, float* m, float* v, CudaStream stream) {
  const int64_t n = rows * cols;
  if (n == 0) return;
  adamw_kernel<<<num_blocks(n, 256), 256, 0, stream>>>(step, n, cols, row_factor, gradient, weight, m, v);
  check_launch("adamw_update");
}

#define CRUMB_NORM(In, Out)                                                                                  \
  template void rms_norm_forward(const In*, const float*, float, int64_t, int64_t, Out*, CudaStream);        \
  template void rms_norm_backward(const In*, const float*, const Out*, float, int64_t, int64_t, In*, float*, \
                                  CudaStream);
CRUMB_NORM(float, float)
CRUMB_NORM(float, Bf16)
CRUMB_NORM(Bf16, Bf16)
#undef CRUMB_NORM

#define CRUMB_BOTH(T)                                                                                             \
  template void rope(const T*, const float*, const float*, int64_t, int64_t, int64_t, int64_t, int64_t, bool, T*, \
                     CudaStream);                                                                                 \
  template void swiglu_forward(const T*, const T*, int64_t, T*, CudaStream);                                      \
  template void swiglu_backward(const T*, const T*, const T*, int64_t, T*, T*, CudaStream);
CRUMB_BOTH(float)
CRUMB_BOTH(Bf16)
#undef CRUMB_BOTH

}  // namespace crumb::kernels
