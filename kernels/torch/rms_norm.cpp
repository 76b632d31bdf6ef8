#include "kernels/torch/rms_norm.h"

#include "kernels/rms_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "kernels/torch/executor.h"
#include "kernels/torch/op.h"

namespace crumb::kernels {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check(const Tensor& x, const Tensor& weight) {
  TORCH_CHECK(x.dim() > 0 && weight.dim() == 1 && weight.size(0) == x.size(-1), "rms_norm: weight must be [",
              x.dim() > 0 ? x.size(-1) : 0, "], the last size of x, got ", weight.sizes());
}

// --- made of Torch's operators --------------------------------------------------------------------------------------

Tensor inverse_rms(const Tensor& x, double eps) { return (x.square().mean(-1, true) + eps).rsqrt(); }

Tensor forward_composite(const Tensor& x, const Tensor& weight, double eps, at::ScalarType dtype) {
  check(x, weight);
  const Tensor wide_x = x.to(wide(x));
  return (wide_x * inverse_rms(wide_x, eps) * weight).to(dtype);
}

std::tuple<Tensor, Tensor> backward_composite(const Tensor& grad, const Tensor& x, const Tensor& weight, double eps,
                                              bool weight_gradient) {
  check(x, weight);
  const Tensor wide_x = x.to(wide(x)), g = grad.to(wide(x)), inverse = inverse_rms(wide_x, eps);
  const Tensor weighted = g * weight, pull = (wide_x * weighted).mean(-1, true) * inverse.square();
  const Tensor grad_x = ((weighted - wide_x * pull) * inverse).to(x.scalar_type());
  if (!weight_gradient) return {grad_x, at::empty({0}, weight.options())};
  const Tensor by_row = (g * wide_x * inverse).reshape({-1, weight.size(0)});
  return {grad_x, by_row.sum(0).to(weight.scalar_type())};
}

// --- CPU: the kernels -----------------------------------------------------------------------------------------------

/// Calls body(In{}, Out{}).
template <class Body>
void with_types(at::ScalarType in, at::ScalarType out, const Body& body) {
  if (in == at::kBFloat16)
    body(Bf16{}, Bf16{});
  else
    with_type(out, [&](auto out_type) { body(float{}, out_type); });
}

/// `y` is y's type; bf16 in and float out has no kernel.
bool fits(const Tensor& x, const Tensor& weight, at::ScalarType y) {
  return has_kernel(x.scalar_type()) && has_kernel(y) && weight.scalar_type() == at::kFloat &&
         (x.scalar_type() == at::kFloat || y == at::kBFloat16);
}

Tensor forward_cpu(const Tensor& x, const Tensor& weight, double eps, at::ScalarType dtype) {
  if (!fits(x, weight, dtype)) return forward_composite(x, weight, eps, dtype);
  check(x, weight);
  const Tensor in = x.contiguous(), w = weight.contiguous();
  Tensor y = at::empty_like(in, in.options().dtype(dtype));
  const int64_t cols = in.size(-1);
  with_types(in.scalar_type(), dtype, [&](auto in_type, auto out_type) {
    rms_norm_forward(data<decltype(in_type)>(in), data<float>(w), static_cast<float>(eps), in.numel() / cols, cols,
                     mutable_data<decltype(out_type)>(y), torch_executor());
  });
  return y;
}

std::tuple<Tensor, Tensor> backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& weight, double eps,
                                        bool weight_gradient) {
  if (!fits(x, weight, grad.scalar_type())) return backward_composite(grad, x, weight, eps, weight_gradient);
  check(x, weight);
  const Tensor in = x.contiguous(), w = weight.contiguous(), g = grad.contiguous();
  Tensor grad_x = at::empty_like(in), grad_weight = at::empty({weight_gradient ? w.size(0) : 0}, w.options());
  const int64_t cols = in.size(-1);
  with_types(in.scalar_type(), g.scalar_type(), [&](auto in_type, auto out_type) {
    kernels::rms_norm_backward(data<decltype(in_type)>(in), data<float>(w), data<decltype(out_type)>(g),
                               static_cast<float>(eps), in.numel() / cols, cols,
                               mutable_data<decltype(in_type)>(grad_x),
                               weight_gradient ? mutable_data<float>(grad_weight) : nullptr, torch_executor());
  });
  return {grad_x, grad_weight};
}

// --- autograd -------------------------------------------------------------------------------------------------------

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, double eps, at::ScalarType dtype) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({x, weight});
    ctx->saved_data["eps"] = eps;
    return rms_norm(x, weight, eps, dtype);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const bool weight_gradient = ctx->needs_input_grad(1);
    auto [grad_x, grad_weight] =
        rms_norm_backward(grads[0], saved[0], saved[1], ctx->saved_data["eps"].toDouble(), weight_gradient);
    return {grad_x, weight_gradient ? grad_weight : Tensor(), {}, {}};
  }
};

Tensor forward_autograd(const Tensor& x, const Tensor& weight, double eps, at::ScalarType dtype) {
  return RmsNorm::apply(x, weight, eps, dtype);
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, at::ScalarType dtype) {
  static const auto op = find_op<decltype(forward_cpu)>("crumb::rms_norm");
  return op.call(x, weight, eps, dtype);
}

std::tuple<Tensor, Tensor> rms_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& weight, double eps,
                                             bool weight_gradient) {
  static const auto op = find_op<decltype(backward_cpu)>("crumb::rms_norm_backward");
  return op.call(grad, x, weight, eps, weight_gradient);
}

TORCH_LIBRARY_FRAGMENT(crumb, m) {
  m.def("rms_norm(Tensor x, Tensor weight, float eps, ScalarType dtype) -> Tensor");
  m.def("rms_norm_backward(Tensor grad, Tensor x, Tensor weight, float eps, bool weight_gradient) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(crumb, CPU, m) {
  m.impl("rms_norm", forward_cpu);
  m.impl("rms_norm_backward", backward_cpu);
}
TORCH_LIBRARY_IMPL(crumb, CompositeExplicitAutograd, m) {
  m.impl("rms_norm", forward_composite);
  m.impl("rms_norm_backward", backward_composite);
}
TORCH_LIBRARY_IMPL(crumb, Autograd, m) { m.impl("rms_norm", forward_autograd); }

}  // namespace crumb::kernels
