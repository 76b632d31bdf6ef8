#include "kernels/torch/rms_norm.h"

#include "kernels/rms_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
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

void check(const Tensor& x, const Tensor& weight) {
  TORCH_CHECK(x.dim() > 0 && weight.dim() == 1 && weight.size(0) == x.size(-1), "rms_norm: weight must be [",
              x.dim() > 0 ? x.size(-1) : 0, "], the last size of x, got ", weight.sizes());
  check_same_device("rms_norm", x, {weight});
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

// --- the kernels ----------------------------------------------------------------------------------------------------

/// Calls body(In{}, Out{}).
template <class Body>
void with_types(at::ScalarType in, at::ScalarType out, const Body& body) {
  if (in == at::kBFloat16)
    body(Bf16{}, Bf16{});
  else
    with_type(out, [&](auto out_type) { body(float{}, out_type); });
}

/// `y` is y's type; bf16 in and float out has no kernel, nor has a row of nothing.
bool fits(const Tensor& x, const Tensor& weight, at::ScalarType y) {
  return x.numel() > 0 && has_kernel(x.scalar_type()) && has_kernel(y) && weight.scalar_type() == at::kFloat &&
         (x.scalar_type() == at::kFloat || y == at::kBFloat16);
}

template <class Where>
Tensor forward_on(const Tensor& x, const Tensor& weight, double eps, at::ScalarType dtype) {
  if (!fits(x, weight, dtype)) return forward_composite(x, weight, eps, dtype);
  check(x, weight);
  const Tensor in = x.contiguous(), w = weight.contiguous();
  Tensor y = at::empty_like(in, in.options().dtype(dtype));
  const int64_t cols = in.size(-1);
  with_types(in.scalar_type(), dtype, [&](auto in_type, auto out_type) {
    rms_norm_forward(data<decltype(in_type)>(in), data<float>(w), static_cast<float>(eps), in.numel() / cols, cols,
                     mutable_data<decltype(out_type)>(y), Where(in).get());
  });
  return y;
}

/// `sums`: what the kernel adds for the gradient of the weight, or null.
template <class Last>
void backward_kernel(const Tensor& x, const Tensor& weight, const Tensor& grad, double eps, const Tensor& grad_x,
                     float* sums, Last&& where) {
  const int64_t cols = x.size(-1);
  with_types(x.scalar_type(), grad.scalar_type(), [&](auto in_type, auto out_type) {
    kernels::rms_norm_backward(data<decltype(in_type)>(x), data<float>(weight), data<decltype(out_type)>(grad),
                               static_cast<float>(eps), x.numel() / cols, cols, mutable_data<decltype(in_type)>(grad_x),
                               sums, where);
  });
}

std::tuple<Tensor, Tensor> backward_cpu(const Tensor& grad, const Tensor& x, const Tensor& weight, double eps,
                                        bool weight_gradient) {
  if (!fits(x, weight, grad.scalar_type())) return backward_composite(grad, x, weight, eps, weight_gradient);
  check(x, weight);
  check_same_device("rms_norm", x, {grad});
  const Tensor in = x.contiguous(), w = weight.contiguous(), g = grad.contiguous();
  const int64_t cols = in.size(-1);
  Tensor grad_x = at::empty_like(in), sums = at::empty({weight_gradient ? cols : 0}, w.options());
  backward_kernel(in, w, g, eps, grad_x, weight_gradient ? mutable_data<float>(sums) : nullptr, torch_executor());
  return {grad_x, sums};
}

#ifdef CRUMB_CUDA_KERNELS
std::tuple<Tensor, Tensor> backward_cuda(const Tensor& grad, const Tensor& x, const Tensor& weight, double eps,
                                         bool weight_gradient) {
  if (!fits(x, weight, grad.scalar_type()) || x.size(-1) > kRmsNormMaxCols)
    return backward_composite(grad, x, weight, eps, weight_gradient);
  check(x, weight);
  check_same_device("rms_norm", x, {grad});
  const Tensor in = x.contiguous(), w = weight.contiguous(), g = grad.contiguous();
  const int64_t cols = in.size(-1);
  Tensor grad_x = at::empty_like(in),
         parts = at::empty({weight_gradient ? rms_norm_parts(in.numel() / cols) : 0, cols}, w.options());
  backward_kernel(in, w, g, eps, grad_x, weight_gradient ? mutable_data<float>(parts) : nullptr, Cuda(in).get());
  return {grad_x, weight_gradient ? parts.sum(0) : at::empty({0}, w.options())};
}
#endif

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
  static const auto op = find_op<decltype(forward_composite)>("crumb::rms_norm");
  return op.call(x, weight, eps, dtype);
}

std::tuple<Tensor, Tensor> rms_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& weight, double eps,
                                             bool weight_gradient) {
  static const auto op = find_op<decltype(backward_composite)>("crumb::rms_norm_backward");
  return op.call(grad, x, weight, eps, weight_gradient);
}

TORCH_LIBRARY_FRAGMENT(crumb, m) {
  m.def("rms_norm(Tensor x, Tensor weight, float eps, ScalarType dtype) -> Tensor");
  m.def("rms_norm_backward(Tensor grad, Tensor x, Tensor weight, float eps, bool weight_gradient) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(crumb, CPU, m) {
  m.impl("rms_norm", forward_on<Cpu>);
  m.impl("rms_norm_backward", backward_cpu);
}
#ifdef CRUMB_CUDA_KERNELS
TORCH_LIBRARY_IMPL(crumb, CUDA, m) {
  m.impl("rms_norm", forward_on<Cuda>);
  m.impl("rms_norm_backward", backward_cuda);
}
#endif
TORCH_LIBRARY_IMPL(crumb, CompositeExplicitAutograd, m) {
  m.impl("rms_norm", forward_composite);
  m.impl("rms_norm_backward", backward_composite);
}
TORCH_LIBRARY_IMPL(crumb, Autograd, m) { m.impl("rms_norm", forward_autograd); }

}  // namespace crumb::kernels
