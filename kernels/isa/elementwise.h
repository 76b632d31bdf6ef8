// rms_norm, rope and swiglu on vectors; included by the files of the instruction sets (kernels/isa/vector.h says why
// everything is in an anonymous namespace).
#pragma once

#include "kernels/isa/vector.h"

namespace crumb::kernels {
namespace {

template <class T>
inline float inverse_rms(const T* x, int64_t cols, float eps) {
  Vec squares = broadcast(0);
  for_each_vector(cols, [&](int64_t i, int64_t count) {
    const Vec v = load(x + i, count, 0);
    squares += v * v;
  });
  return 1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(cols) + eps);
}

template <class In, class Out>
inline void rms_norm_rows(const In* x, const float* weight, float eps, int64_t rows, int64_t cols, Out* y) {
  for (int64_t r = 0; r < rows; ++r) {
    const In* in = x + r * cols;
    Out* out = y + r * cols;
    const float inverse = inverse_rms(in, cols, eps);
    for_each_vector(cols, [&](int64_t i, int64_t count) {
      store(out + i, load(in + i, count, 0) * inverse * load(weight + i, count, 0), count);
    });
  }
}

template <class In, class Out>
inline void rms_norm_backward_row(const In* x, const float* weight, const Out* grad_y, float eps, int64_t cols,
                                  In* grad_x, float* grad_weight) {
  const float inverse = inverse_rms(x, cols, eps);
  Vec products = broadcast(0);
  for_each_vector(cols, [&](int64_t i, int64_t count) {
    products += load(x + i, count, 0) * load(grad_y + i, count, 0) * load(weight + i, count, 0);
  });
  const float pull = sum(products) / static_cast<float>(cols) * inverse * inverse;
  for_each_vector(cols, [&](int64_t i, int64_t count) {
    const Vec v = load(x + i, count, 0), g = load(grad_y + i, count, 0);
    store(grad_x + i, (g * load(weight + i, count, 0) - v * pull) * inverse, count);
    if (grad_weight != nullptr) store(grad_weight + i, load(grad_weight + i, count, 0) + g * v * inverse, count);
  });
}

template <class In, class Out>
inline void rms_norm_backward_rows(const In* x, const float* weight, const Out* grad_y, float eps, int64_t rows,
                                   int64_t cols, In* grad_x, float* grad_weight) {
  for (int64_t r = 0; r < rows; ++r)
    rms_norm_backward_row(x + r * cols, weight, grad_y + r * cols, eps, cols, grad_x + r * cols, grad_weight);
}

template <class T>
inline void rope_head(const T* x, const float* cos, const float* sin, int64_t half, bool inverse, T* y) {
  const float direction = inverse ? -1.0f : 1.0f;
  for_each_vector(half, [&](int64_t i, int64_t count) {
    const Vec c = load(cos + i, count, 0), s = load(sin + i, count, 0) * direction;
    const Vec a = load(x + i, count, 0), b = load(x + half + i, count, 0);
    store(y + i, a * c - b * s, count);
    store(y + half + i, b * c + a * s, count);
  });
}

inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }

template <class T>
inline void swiglu_values(const T* gate, const T* up, int64_t n, T* y) {
  for_each_vector(n, [&](int64_t i, int64_t count) {
    const Vec g = load(gate + i, count, 0);
    store(y + i, g * sigmoid(g) * load(up + i, count, 0), count);
  });
}

template <class T>
inline void swiglu_backward_values(const T* gate, const T* up, const T* grad_y, int64_t n, T* grad_gate, T* grad_up) {
  for_each_vector(n, [&](int64_t i, int64_t count) {
    const Vec g = load(gate + i, count, 0), d = load(grad_y + i, count, 0), s = sigmoid(g);
    const Vec u = load(up + i, count, 0);
    store(grad_up + i, d * g * s, count);
    store(grad_gate + i, d * u * s * (1.0f + g * (1.0f - s)), count);
  });
}

}  // namespace
}  // namespace crumb::kernels
