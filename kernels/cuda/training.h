// What a training step does outside of matrix products, on a CUDA device. Arguments, shapes and formulas are those of
// the functions of the same name in kernels/{seq,rms_norm,rope,swiglu,divergence,adamw}.h. Sums are made in an order
// that depends on the shape alone: the same bits every time.
#pragma once

#include <cstdint>

#include "kernels/adamw.h"
#include "kernels/bf16.h"
#include "kernels/cuda/stream.h"
#include "kernels/divergence.h"
#include "kernels/seq.h"

namespace crumb::kernels {

/// The same bits as on the CPU; as Bf16, those rounded.
template <class T>
void seq_forward(const float* w, const float* scale, int64_t rows, int64_t cols, int64_t group_size, T* y,
                 uint8_t* codes, CudaStream stream);
/// grad_w the same bits as on the CPU; grad_log_scale is summed in another order, in double beyond a thread.
template <class T>
void seq_backward(const float* w, const float* scale, const T* grad_y, int64_t rows, int64_t cols, int64_t group_size,
                  OutsideGradient outside, float* grad_w, float* grad_log_scale, CudaStream stream);

template <class In, class Out>
void rms_norm_forward(const In* x, const float* weight, float eps, int64_t rows, int64_t cols, Out* y,
                      CudaStream stream);

/// Rows of `parts` that rms_norm_backward fills.
int64_t rms_norm_parts(int64_t rows);
/// More columns than this have no kernel: a row of sums must fit into the 48 KB of shared memory that every device has,
/// beside what the sums over the block take.
inline constexpr int64_t kRmsNormMaxCols = 12288 - 64;
/// parts [rms_norm_parts(rows), cols], may be null: their sum over rows is the gradient of the weight.
template <class In, class Out>
void rms_norm_backward(const In* x, const float* weight, const Out* grad_y, float eps, int64_t rows, int64_t cols,
                       In* grad_x, float* parts, CudaStream stream);

template <class T>
void rope(const T* x, const float* cos, const float* sin, int64_t batch, int64_t tokens, int64_t heads,
          int64_t head_dim, int64_t half, bool inverse, T* y, CudaStream stream);

template <class T>
void swiglu_forward(const T* gate, const T* up, int64_t n, T* y, CudaStream stream);
template <class T>
void swiglu_backward(const T* gate, const T* up, const T* grad_y, int64_t n, T* grad_gate, T* grad_up,
                     CudaStream stream);

/// The teacher's logits stay as they are.
void logit_loss(float* student, const float* teacher, const int64_t* targets, const float* row_weights, int64_t rows,
                int64_t vocab, const LogitLossSpec& spec, LossTerms* terms, CudaStream stream);

void adamw_update(const AdamWStep& step, int64_t rows, int64_t cols, const float* row_factor, const float* gradient,
                  float* weight, float* m, float* v, CudaStream stream);

}  // namespace crumb::kernels
