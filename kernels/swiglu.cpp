#include "kernels/swiglu.h"

#include <algorithm>

namespace crumb::kernels {
namespace {

constexpr int64_t kPiece = 8192;  // values a thread takes at once; a multiple of 8, so that cuts fall between vectors

inline Vec8 sigmoid(Vec8 x) { return 1.0f / (1.0f + exp(-x)); }

/// body(begin, length) over pieces of [0, n).
template <class Body>
void for_pieces(int64_t n, const ParallelFor& parallel_for, const Body& body) {
  parallel_for((n + kPiece - 1) / kPiece, 1,
               [&](int64_t begin, int64_t end) { body(begin * kPiece, std::min(end * kPiece, n) - begin * kPiece); });
}

}  // namespace

template <class T>
void swiglu_forward(const T* gate, const T* up, int64_t n, T* y, const ParallelFor& parallel_for) {
  for_pieces(n, parallel_for, [&](int64_t begin, int64_t length) {
    const T *g_in = gate + begin, *u_in = up + begin;
    T* out = y + begin;
    for_each8(length, [&](int64_t i, int64_t count) {
      const Vec8 g = load(g_in + i, count, 0);
      store(out + i, g * sigmoid(g) * load(u_in + i, count, 0), count);
    });
  });
}

template <class T>
void swiglu_backward(const T* gate, const T* up, const T* grad_y, int64_t n, T* grad_gate, T* grad_up,
                     const ParallelFor& parallel_for) {
  for_pieces(n, parallel_for, [&](int64_t begin, int64_t length) {
    const T *g_in = gate + begin, *u_in = up + begin, *d_in = grad_y + begin;
    T *g_out = grad_gate + begin, *u_out = grad_up + begin;
    for_each8(length, [&](int64_t i, int64_t count) {
      const Vec8 g = load(g_in + i, count, 0), d = load(d_in + i, count, 0), s = sigmoid(g);
      store(u_out + i, d * g * s, count);
      store(g_out + i, d * load(u_in + i, count, 0) * s * (1.0f + g * (1.0f - s)), count);
    });
  });
}

#define CRUMB_SWIGLU(T)                                                              \
  template void swiglu_forward(const T*, const T*, int64_t, T*, const ParallelFor&); \
  template void swiglu_backward(const T*, const T*, const T*, int64_t, T*, T*, const ParallelFor&);
CRUMB_SWIGLU(float)
CRUMB_SWIGLU(Bf16)
#undef CRUMB_SWIGLU

}  // namespace crumb::kernels
