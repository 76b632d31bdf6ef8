#include "kernels/rope.h"

#include <algorithm>

#include "kernels/isa/table.h"

namespace crumb::kernels {

template <class T>
void rope(const T* x, const float* cos, const float* sin, int64_t batch, int64_t tokens, int64_t heads,
          int64_t head_dim, int64_t half, bool inverse, T* y, Executor& executor, Isa isa) {
  const auto turn = kernel_table(isa).of<T>().rope;
  const int64_t grain = std::max<int64_t>(1, 16384 / (heads * head_dim));
  executor.run(batch * tokens, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t position = r % tokens;
      for (int64_t h = 0; h < heads; ++h) {
        const T* in = x + (r * heads + h) * head_dim;
        T* out = y + (r * heads + h) * head_dim;
        turn(in, cos + position * half, sin + position * half, half, inverse, out);
        if (out != in) std::copy(in + 2 * half, in + head_dim, out + 2 * half);
      }
    }
  });
}

#define CRUMB_ROPE(T)                                                                                             \
  template void rope(const T*, const float*, const float*, int64_t, int64_t, int64_t, int64_t, int64_t, bool, T*, \
                     Executor&, Isa);
CRUMB_ROPE(float)
CRUMB_ROPE(Bf16)
#undef CRUMB_ROPE

}  // namespace crumb::kernels
