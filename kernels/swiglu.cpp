#include "kernels/swiglu.h"

#include <algorithm>

#include "kernels/isa/table.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kPiece = 8192;  // values a thread takes at once; a multiple of every vector's length

/// body(begin, length) over pieces of [0, n).
template <class Body>
void for_pieces(int64_t n, Executor& executor, const Body& body) {
  executor.run((n + kPiece - 1) / kPiece, 1, [&](int64_t begin, int64_t end, int) {
    body(begin * kPiece, std::min(end * kPiece, n) - begin * kPiece);
  });
}

}  // namespace

template <class T>
void swiglu_forward(const T* gate, const T* up, int64_t n, T* y, Executor& executor, Isa isa) {
  const auto forward = kernel_table(isa).of<T>().swiglu;
  for_pieces(n, executor, [&](int64_t begin, int64_t length) { forward(gate + begin, up + begin, length, y + begin); });
}

template <class T>
void swiglu_backward(const T* gate, const T* up, const T* grad_y, int64_t n, T* grad_gate, T* grad_up,
                     Executor& executor, Isa isa) {
  const auto backward = kernel_table(isa).of<T>().swiglu_backward;
  for_pieces(n, executor, [&](int64_t begin, int64_t length) {
    backward(gate + begin, up + begin, grad_y + begin, length, grad_gate + begin, grad_up + begin);
  });
}

#define CRUMB_SWIGLU(T)                                                          \
  template void swiglu_forward(const T*, const T*, int64_t, T*, Executor&, Isa); \
  template void swiglu_backward(const T*, const T*, const T*, int64_t, T*, T*, Executor&, Isa);
CRUMB_SWIGLU(float)
CRUMB_SWIGLU(Bf16)
#undef CRUMB_SWIGLU

}  // namespace crumb::kernels
