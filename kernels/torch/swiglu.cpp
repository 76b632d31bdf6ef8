#include "kernels/torch/swiglu.h"

#include "kernels/swiglu.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/silu.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "kernels/torch/op.h"
#include "kernels/torch/where.h"

namespace crumb::kernels {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check(const Tensor& gate, const Tensor& up) {
  TORCH_CHECK(gate.sizes() == up.sizes() && gate.scalar_type() == up.scalar_type(),
              "swiglu: gate and up must be alike, got ", gate.scalar_type(), " ", gate.sizes(), " and ",
              up.scalar_type(), " ", up.sizes());
  check_same_device("swiglu", gate, {up});
}

Tensor forward_composite(const Tensor& gate, const Tensor& up) {
  check(gate, up);
  return at::silu(gate) * up;
}

std::tuple<Tensor, Tensor> backward_composite(const Tensor& grad, const Tensor& gate, const Tensor& up) {
  check(gate, up);
  const auto type = gate.scalar_type();
  const Tensor g = gate.to(wide(gate)), d = grad.to(wide(gate)), s = g.sigmoid();
  return {(d * up * s * (1 + g * (1 - s))).to(type), (d * g * s).to(type)};
}

template <class Where>
Tensor forward_on(const Tensor& gate, const Tensor& up) {
  if (!has_kernel(gate.scalar_type())) return forward_composite(gate, up);
  check(gate, up);
  const Tensor g = gate.contiguous(), u = up.contiguous();
  Tensor y = at::empty_like(g);
  with_type(g.scalar_type(), [&](auto type) {
    using T = decltype(type);
    swiglu_forward(data<T>(g), data<T>(u), g.numel(), mutable_data<T>(y), Where(g).get());
  });
  return y;
}

template <class Where>
std::tuple<Tensor, Tensor> backward_on(const Tensor& grad, const Tensor& gate, const Tensor& up) {
  if (!has_kernel(gate.scalar_type())) return backward_composite(grad, gate, up);
  check(gate, up);
  check(gate, grad);
  const Tensor g = gate.contiguous(), u = up.contiguous(), d = grad.contiguous();
  Tensor grad_gate = at::empty_like(g), grad_up = at::empty_like(u);
  with_type(g.scalar_type(), [&](auto type) {
    using T = decltype(type);
    kernels::swiglu_backward(data<T>(g), data<T>(u), data<T>(d), g.numel(), mutable_data<T>(grad_gate),
                             mutable_data<T>(grad_up), Where(g).get());
  });
  return {grad_gate, grad_up};
}

struct Swiglu : torch::autograd::Function<Swiglu> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate, const Tensor& up) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({gate, up});
    return swiglu(gate, up);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_gate, grad_up] = swiglu_backward(grads[0], saved[0], saved[1]);
    return {grad_gate, grad_up};
  }
};

Tensor forward_autograd(const Tensor& gate, const Tensor& up) { return Swiglu::apply(gate, up); }

}  // namespace

Tensor swiglu(const Tensor& gate, const Tensor& up) {
  static const auto op = find_op<decltype(forward_composite)>("crumb::swiglu");
  return op.call(gate, up);
}

std::tuple<Tensor, Tensor> swiglu_backward(const Tensor& grad, const Tensor& gate, const Tensor& up) {
  static const auto op = find_op<decltype(backward_composite)>("crumb::swiglu_backward");
  return op.call(grad, gate, up);
}

TORCH_LIBRARY_FRAGMENT(crumb, m) {
  m.def("swiglu(Tensor gate, Tensor up) -> Tensor");
  m.def("swiglu_backward(Tensor grad, Tensor gate, Tensor up) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(crumb, CPU, m) {
  m.impl("swiglu", forward_on<Cpu>);
  m.impl("swiglu_backward", backward_on<Cpu>);
}
#ifdef CRUMB_CUDA_KERNELS
TORCH_LIBRARY_IMPL(crumb, CUDA, m) {
  m.impl("swiglu", forward_on<Cuda>);
  m.impl("swiglu_backward", backward_on<Cuda>);
}
#endif
TORCH_LIBRARY_IMPL(crumb, CompositeExplicitAutograd, m) {
  m.impl("swiglu", forward_composite);
  m.impl("swiglu_backward", backward_composite);
}
TORCH_LIBRARY_IMPL(crumb, Autograd, m) { m.impl("swiglu", forward_autograd); }

}  // namespace crumb::kernels
