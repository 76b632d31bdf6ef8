#include "kernels/rope.h"

#include <algorithm>

namespace crumb::kernels {
namespace {

template <class T>
void turn(const T* x, const float* cos, const float* sin, int64_t half, float direction, T* y) {
  for_each8(half, [&](int64_t i, int64_t count) {
    const Vec8 c = load(cos + i, count, 0), s = load(sin + i, count, 0) * direction;
    const Vec8 a = load(x + i, count, 0), b = load(x + half + i, count, 0);
    store(y + i, a * c - b * s, count);
    store(y + half + i, b * c + a * s, count);
  });
}

}  // namespace

template <class T>
void rope(const T* x, const float* cos, const float* sin, int64_t batch, int64_t tokens, int64_t heads,
          int64_t head_dim, int64_t half, bool inverse, T* y, const ParallelFor& parallel_for) {
  parallel_for(batch * tokens, std::max<int64_t>(1, 16384 / (heads * head_dim)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t position = r % tokens;
      for (int64_t h = 0; h < heads; ++h) {
        const T* in = x + (r * heads + h) * head_dim;
        T* out = y + (r * heads + h) * head_dim;
        turn(in, cos + position * half, sin + position * half, half, inverse ? -1.0f : 1.0f, out);
        std::copy(in + 2 * half, in + head_dim, out + 2 * half);
      }
    }
  });
}

#define CRUMB_ROPE(T)                                                                                             \
  template void rope(const T*, const float*, const float*, int64_t, int64_t, int64_t, int64_t, int64_t, bool, T*, \
                     const ParallelFor&);
CRUMB_ROPE(float)
CRUMB_ROPE(Bf16)
#undef CRUMB_ROPE

}  // namespace crumb::kernels
