#include "kernels/torch/rope.h"

#include "kernels/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "kernels/torch/op.h"
#include "kernels/torch/where.h"

namespace crumb::kernels {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  TORCH_CHECK(x.dim() == 4, "rope: x must be [batch, tokens, heads, head_dim], got ", x.sizes());
  TORCH_CHECK(cos.dim() == 2 && cos.size(0) == x.size(1) && 2 * cos.size(1) <= x.size(3) && cos.sizes() == sin.sizes(),
              "rope: cos and sin must be [", x.size(1), ", at most ", x.size(3) / 2, "], got ", cos.sizes(), " and ",
              sin.sizes());
  check_same_device("rope", x, {cos, sin});
}

Tensor rope_composite(const Tensor& x, const Tensor& cos, const Tensor& sin, bool inverse) {
  check(x, cos, sin);
  const int64_t half = cos.size(1);
  const Tensor c = cos.unsqueeze(1), s = inverse ? -sin.unsqueeze(1) : sin.unsqueeze(1);  // [tokens, 1, half]
  const Tensor a = x.narrow(-1, 0, half), b = x.narrow(-1, half, half),
               rest = x.narrow(-1, 2 * half, x.size(-1) - 2 * half);
  return at::cat({(a * c - b * s).to(x.scalar_type()), (b * c + a * s).to(x.scalar_type()), rest}, -1);
}

template <class Where>
Tensor rope_on(const Tensor& x, const Tensor& cos, const Tensor& sin, bool inverse) {
  if (!has_kernel(x.scalar_type()) || cos.scalar_type() != at::kFloat || sin.scalar_type() != at::kFloat)
    return rope_composite(x, cos, sin, inverse);
  check(x, cos, sin);
  const Tensor in = x.contiguous(), c = cos.contiguous(), s = sin.contiguous();
  Tensor y = at::empty_like(in);
  with_type(in.scalar_type(), [&](auto type) {
    using T = decltype(type);
    kernels::rope(data<T>(in), data<float>(c), data<float>(s), in.size(0), in.size(1), in.size(2), in.size(3),
                  c.size(1), inverse, mutable_data<T>(y), Where(in).get());
  });
  return y;
}

struct Rope : torch::autograd::Function<Rope> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& cos, const Tensor& sin, bool inverse) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["inverse"] = inverse;
    return rope(x, cos, sin, inverse);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {rope(grads[0], saved[0], saved[1], !ctx->saved_data["inverse"].toBool()), {}, {}, {}};
  }
};

Tensor rope_autograd(const Tensor& x, const Tensor& cos, const Tensor& sin, bool inverse) {
  return Rope::apply(x, cos, sin, inverse);
}

}  // namespace

Tensor rope(const Tensor& x, const Tensor& cos, const Tensor& sin, bool inverse) {
  static const auto op = find_op<decltype(rope_composite)>("crumb::rope");
  return op.call(x, cos, sin, inverse);
}

TORCH_LIBRARY_FRAGMENT(crumb, m) { m.def("rope(Tensor x, Tensor cos, Tensor sin, bool inverse=False) -> Tensor"); }
TORCH_LIBRARY_IMPL(crumb, CPU, m) { m.impl("rope", rope_on<Cpu>); }
#ifdef CRUMB_CUDA_KERNELS
TORCH_LIBRARY_IMPL(crumb, CUDA, m) { m.impl("rope", rope_on<Cuda>); }
#endif
TORCH_LIBRARY_IMPL(crumb, CompositeExplicitAutograd, m) { m.impl("rope", rope_composite); }
TORCH_LIBRARY_IMPL(crumb, Autograd, m) { m.impl("rope", rope_autograd); }

}  // namespace crumb::kernels
