#include "model/ops.h"

#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"
#include "kernels/torch/executor.h"

namespace crumb::model {

namespace composite {

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps, torch::ScalarType out) {
  const torch::Tensor x32 = x.scalar_type() == torch::kBFloat16 ? x.to(torch::kFloat32) : x;
  return (x32 * (x32.square().mean(-1, true) + eps).rsqrt() * weight).to(out);
}

torch::Tensor rope(const torch::Tensor& x, const torch::Tensor& cos, const torch::Tensor& sin) {
  const int64_t half = cos.size(1);
  const torch::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);  // [tokens, 1, half]
  const torch::Tensor a = x.narrow(-1, 0, half), b = x.narrow(-1, half, half),
                      rest = x.narrow(-1, 2 * half, x.size(-1) - 2 * half);
  return torch::cat({(a * c - b * s).to(x.scalar_type()), (b * c + a * s).to(x.scalar_type()), rest}, -1);
}

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) { return torch::silu(gate) * up; }

}  // namespace composite

namespace {

using kernels::Bf16;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr auto kF32 = torch::kFloat32, kBf16 = torch::kBFloat16;

bool has_kernel(const torch::Tensor& x) { return x.is_cpu() && (x.scalar_type() == kF32 || x.scalar_type() == kBf16); }

template <class T>
T* data(const torch::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

/// Calls body(T{}) with the storage type of `dtype`.
template <class Body>
void with_type(torch::ScalarType dtype, const Body& body) {
  if (dtype == kF32)
    body(float{});
  else
    body(Bf16{});
}

/// Calls body(In{}, Out{}); bf16 in and float out does not occur.
template <class Body>
void with_types(torch::ScalarType in, torch::ScalarType out, const Body& body) {
  if (in == kBf16)
    body(Bf16{}, Bf16{});
  else
    with_type(out, [&](auto out_type) { body(float{}, out_type); });
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& x, const torch::Tensor& weight, double eps,
                               torch::ScalarType out) {
    const torch::Tensor in = x.contiguous();
    torch::Tensor y = torch::empty_like(in, in.options().dtype(out));
    const int64_t cols = in.size(-1);
    with_types(in.scalar_type(), out, [&](auto in_type, auto out_type) {
      kernels::rms_norm_forward(data<decltype(in_type)>(in), data<float>(weight), static_cast<float>(eps),
                                in.numel() / cols, cols, data<decltype(out_type)>(y), kernels::torch_executor());
    });
    ctx->save_for_backward({in, weight});
    ctx->saved_data["eps"] = eps;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor &in = saved[0], &weight = saved[1], grad_y = grads[0].contiguous();
    torch::Tensor grad_x = torch::empty_like(in), grad_weight;
    if (ctx->needs_input_grad(1)) grad_weight = torch::empty_like(weight);
    const int64_t cols = in.size(-1);
    with_types(in.scalar_type(), grad_y.scalar_type(), [&](auto in_type, auto out_type) {
      kernels::rms_norm_backward(data<decltype(in_type)>(in), data<float>(weight), data<decltype(out_type)>(grad_y),
                                 static_cast<float>(ctx->saved_data["eps"].toDouble()), in.numel() / cols, cols,
                                 data<decltype(in_type)>(grad_x),
                                 grad_weight.defined() ? data<float>(grad_weight) : nullptr, kernels::torch_executor());
    });
    return {grad_x, grad_weight, {}, {}};
  }
};

torch::Tensor turned(const torch::Tensor& x, const torch::Tensor& cos, const torch::Tensor& sin, bool inverse) {
  torch::Tensor y = torch::empty_like(x);
  with_type(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    kernels::rope(data<T>(x), data<float>(cos), data<float>(sin), x.size(0), x.size(1), x.size(2), x.size(3),
                  cos.size(1), inverse, data<T>(y), kernels::torch_executor());
  });
  return y;
}

struct Rope : torch::autograd::Function<Rope> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& x, const torch::Tensor& cos,
                               const torch::Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return turned(x.contiguous(), cos, sin, false);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {turned(grads[0].contiguous(), saved[0], saved[1], true), {}, {}};
  }
};

struct Swiglu : torch::autograd::Function<Swiglu> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& gate, const torch::Tensor& up) {
    const torch::Tensor g = gate.contiguous(), u = up.contiguous();
    torch::Tensor y = torch::empty_like(g);
    with_type(g.scalar_type(), [&](auto type) {
      using T = decltype(type);
      kernels::swiglu_forward(data<T>(g), data<T>(u), g.numel(), data<T>(y), kernels::torch_executor());
    });
    ctx->save_for_backward({g, u});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const torch::Tensor &g = saved[0], &u = saved[1], grad_y = grads[0].contiguous();
    torch::Tensor grad_gate = torch::empty_like(g), grad_up = torch::empty_like(u);
    with_type(g.scalar_type(), [&](auto type) {
      using T = decltype(type);
      kernels::swiglu_backward(data<T>(g), data<T>(u), data<T>(grad_y), g.numel(), data<T>(grad_gate), data<T>(grad_up),
                               kernels::torch_executor());
    });
    return {grad_gate, grad_up};
  }
};

}  // namespace

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps, torch::ScalarType out) {
  const bool fits =
      has_kernel(x) && weight.scalar_type() == kF32 && (out == kBf16 || (out == kF32 && x.scalar_type() == kF32));
  return fits ? RmsNorm::apply(x, weight.contiguous(), eps, out) : composite::rms_norm(x, weight, eps, out);
}

torch::Tensor rope(const torch::Tensor& x, const torch::Tensor& cos, const torch::Tensor& sin) {
  return has_kernel(x) ? Rope::apply(x, cos, sin) : composite::rope(x, cos, sin);
}

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) {
  const bool fits = has_kernel(gate) && gate.scalar_type() == up.scalar_type();
  return fits ? Swiglu::apply(gate, up) : composite::swiglu(gate, up);
}

}  // namespace crumb::model
