#include "kernels/torch/seq.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <string>

#include "core/common/error.h"
#include "kernels/torch/op.h"
#include "kernels/torch/where.h"

namespace crumb::kernels {
namespace {

using at::Tensor;
using std::optional;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Columns that share a scale, after checking that everything fits together.
int64_t checked_group_cols(const Tensor& weight, const Tensor& scale, int64_t group_size) {
  TORCH_CHECK(weight.dim() == 2, "seq: weight must be [rows, cols], got ", weight.sizes());
  TORCH_CHECK(weight.scalar_type() == at::kFloat && scale.scalar_type() == at::kFloat,
              "seq: weight and scale must be float32, got ", weight.scalar_type(), " and ", scale.scalar_type());
  TORCH_CHECK(weight.device() == scale.device(), "seq: weight is on ", weight.device(), ", scale on ", scale.device());
  const int64_t cols = weight.size(1), group_cols = group_size == 0 ? cols : group_size;
  TORCH_CHECK(group_cols > 0 && cols % group_cols == 0, "seq: group_size ", group_size, " does not divide ", cols,
              " columns");
  TORCH_CHECK(scale.dim() == 2 && scale.size(0) == weight.size(0) && scale.size(1) == cols / group_cols,
              "seq: scale must be [", weight.size(0), ", ", cols / group_cols, "], got ", scale.sizes());
  return group_cols;
}

at::ScalarType checked(optional<at::ScalarType> dtype) {
  const at::ScalarType type = dtype.value_or(at::kFloat);
  TORCH_CHECK(has_kernel(type), "seq: dtype must be float32 or bfloat16, got ", type);
  return type;
}

// --- the kernels ----------------------------------------------------------------------------------------------------

/// Calls body(T{}) with what the kernels there make of levels and gradients of this type: a CPU's know float32 alone.
template <class Where, class Body>
void with_kernel_type(at::ScalarType type, const Body& body) {
  if constexpr (std::is_same_v<Where, Cpu>)
    body(float{});
  else
    with_type(type, body);
}
template <class Where>
at::ScalarType kernel_type(at::ScalarType type) {
  return std::is_same_v<Where, Cpu> ? at::kFloat : type;
}

template <class Where>
Tensor forward_on(const Tensor& weight, const Tensor& scale, int64_t group_size, optional<at::ScalarType> dtype) {
  const int64_t group_cols = checked_group_cols(weight, scale, group_size);
  const at::ScalarType type = checked(dtype);
  const Tensor w = weight.contiguous(), s = scale.contiguous();
  Tensor y = at::empty_like(w, w.options().dtype(kernel_type<Where>(type)));
  with_kernel_type<Where>(type, [&](auto level) {
    seq_forward(data<float>(w), data<float>(s), w.size(0), w.size(1), group_cols, mutable_data<decltype(level)>(y),
                nullptr, Where(w).get());
  });
  return y.to(type);
}

template <class Where>
Tensor codes_on(const Tensor& weight, const Tensor& scale, int64_t group_size) {
  const int64_t group_cols = checked_group_cols(weight, scale, group_size);
  const Tensor w = weight.contiguous(), s = scale.contiguous();
  Tensor codes = at::empty(w.sizes(), w.options().dtype(at::kByte));
  seq_forward(data<float>(w), data<float>(s), w.size(0), w.size(1), group_cols, static_cast<float*>(nullptr),
              mutable_data<uint8_t>(codes), Where(w).get());
  return codes;
}

template <class Where>
std::tuple<Tensor, Tensor> backward_on(const Tensor& weight, const Tensor& scale, const Tensor& grad,
                                       int64_t group_size, c10::string_view outside) {
  const int64_t group_cols = checked_group_cols(weight, scale, group_size);
  TORCH_CHECK(grad.sizes() == weight.sizes() && has_kernel(grad.scalar_type()),
              "seq: the gradient must be float32 or bfloat16 of the weight's shape, got ", grad.scalar_type(), " ",
              grad.sizes());
  check_same_device("seq", weight, {grad});
  const Tensor w = weight.contiguous(), s = scale.contiguous(),
               g = grad.to(kernel_type<Where>(grad.scalar_type())).contiguous();
  Tensor grad_w = at::empty_like(w), grad_log_scale = at::empty_like(s);
  with_kernel_type<Where>(grad.scalar_type(), [&](auto gradient) {
    seq_backward(data<float>(w), data<float>(s), data<decltype(gradient)>(g), w.size(0), w.size(1), group_cols,
                 outside_gradient_from_name(outside), mutable_data<float>(grad_w), mutable_data<float>(grad_log_scale),
                 Where(w).get());
  });
  return {grad_w, grad_log_scale};
}

// --- other devices: the same definition in Torch's operators --------------------------------------------------------

/// Weights and scales side by side.
struct Grouped {
  Tensor w;  // [groups of all rows, group_cols]
  Tensor s;  // [groups of all rows, 1], rounded
};

Grouped grouped(const Tensor& weight, const Tensor& scale, int64_t group_size) {
  const int64_t group_cols = checked_group_cols(weight, scale, group_size);
  return {weight.reshape({-1, group_cols}), round_scale(scale).reshape({-1, 1})};
}

Tensor code_of(const Grouped& x) {
  return x.w.gt(-x.s).to(at::kByte) + x.w.ge(0).to(at::kByte) + x.w.gt(x.s).to(at::kByte);
}

Tensor level_of(const Grouped& x) {
  const Tensor level = (code_of(x).to(at::kFloat) - 1.5) * x.s;
  return at::where(x.w.isnan(), x.w, level);
}

Tensor forward_composite(const Tensor& weight, const Tensor& scale, int64_t group_size,
                         optional<at::ScalarType> dtype) {
  return level_of(grouped(weight, scale, group_size)).reshape(weight.sizes()).to(checked(dtype));
}

Tensor codes_composite(const Tensor& weight, const Tensor& scale, int64_t group_size) {
  return code_of(grouped(weight, scale, group_size)).reshape(weight.sizes());
}

std::tuple<Tensor, Tensor> backward_composite(const Tensor& weight, const Tensor& scale, const Tensor& grad,
                                              int64_t group_size, c10::string_view outside) {
  const Grouped x = grouped(weight, scale, group_size);
  const Tensor g = grad.to(at::kFloat).reshape(x.w.sizes()), level = level_of(x);
  const Tensor inside = x.w.abs().le(x.s * kSeqRange);
  const Tensor grad_log_scale = (g * at::where(inside, level - x.w, level)).sum(1).reshape(scale.sizes());
  const bool passes = outside_gradient_from_name(outside) == OutsideGradient::ste;
  const Tensor grad_w = passes ? g.clone() : at::where(inside, g, at::zeros_like(g));
  return {grad_w.reshape(weight.sizes()), grad_log_scale};
}

// --- shapes alone, for tracing --------------------------------------------------------------------------------------

Tensor forward_meta(const Tensor& weight, const Tensor& scale, int64_t group_size, optional<at::ScalarType> dtype) {
  checked_group_cols(weight, scale, group_size);
  return at::empty_like(weight, weight.options().dtype(checked(dtype)));
}

Tensor codes_meta(const Tensor& weight, const Tensor& scale, int64_t group_size) {
  checked_group_cols(weight, scale, group_size);
  return at::empty_like(weight, weight.options().dtype(at::kByte));
}

std::tuple<Tensor, Tensor> backward_meta(const Tensor& weight, const Tensor& scale, const Tensor& /*grad*/,
                                         int64_t group_size, c10::string_view /*outside*/) {
  checked_group_cols(weight, scale, group_size);
  return {at::empty_like(weight), at::empty_like(scale)};
}

// --- autograd -------------------------------------------------------------------------------------------------------

struct SeqFakeQuantize : torch::autograd::Function<SeqFakeQuantize> {
  static Tensor forward(AutogradContext* ctx, const Tensor& weight, const Tensor& log_scale, int64_t group_size,
                        OutsideGradient outside, at::ScalarType dtype) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const Tensor scale = log_scale.exp();
    ctx->save_for_backward({weight, scale});
    ctx->saved_data["group_size"] = group_size;
    ctx->saved_data["ste"] = outside == OutsideGradient::ste;
    return seq_forward(weight, scale, group_size, dtype);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto outside = ctx->saved_data["ste"].toBool() ? OutsideGradient::ste : OutsideGradient::zero;
    auto [grad_w, grad_log_scale] =
        seq_backward(saved[0], saved[1], grads[0], ctx->saved_data["group_size"].toInt(), outside);
    return {grad_w, grad_log_scale, {}, {}, {}};
  }
};

Tensor fake_quantize_op(const Tensor& weight, const Tensor& log_scale, int64_t group_size, c10::string_view outside,
                        optional<at::ScalarType> dtype) {
  return seq_fake_quantize(weight, log_scale, group_size, outside_gradient_from_name(outside), checked(dtype));
}

}  // namespace

Tensor seq_fake_quantize(const Tensor& weight, const Tensor& log_scale, int64_t group_size, OutsideGradient outside,
                         at::ScalarType dtype) {
  return SeqFakeQuantize::apply(weight, log_scale, group_size, outside, dtype);
}

Tensor seq_forward(const Tensor& weight, const Tensor& scale, int64_t group_size, at::ScalarType dtype) {
  static const auto op = find_op<decltype(forward_composite)>("crumb::seq_forward");
  return op.call(weight, scale, group_size, dtype);
}

std::tuple<Tensor, Tensor> seq_backward(const Tensor& weight, const Tensor& scale, const Tensor& grad,
                                        int64_t group_size, OutsideGradient outside) {
  using Signature = std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, int64_t, c10::string_view);
  static const auto op = find_op<Signature>("crumb::seq_backward");
  return op.call(weight, scale, grad, group_size, outside_gradient_name(outside));
}

Tensor seq_codes(const Tensor& weight, const Tensor& scale, int64_t group_size) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, int64_t)>("crumb::seq_codes");
  return op.call(weight, scale, group_size);
}

Tensor round_scale(const Tensor& scale) {
  // As the scalar function: half of the last kept bit is added, the 18 bits below it go. The clamp comes first, which
  // also keeps NaN out.
  const Tensor clamped = at::where(scale.gt(kMinScale), scale.clamp_max(kMaxScale), kMinScale).contiguous();
  const Tensor bits = clamped.view(at::kInt);
  return bits.add(1 << 17).bitwise_and(~((1 << 18) - 1)).view(at::kFloat);
}

OutsideGradient outside_gradient_from_name(std::string_view name) {
  CRUMB_CHECK(name == "zero" || name == "ste", "outside_gradient: unknown \"{}\"; known: zero, ste", name);
  return name == "ste" ? OutsideGradient::ste : OutsideGradient::zero;
}

std::string_view outside_gradient_name(OutsideGradient outside) {
  return outside == OutsideGradient::ste ? "ste" : "zero";
}

TORCH_LIBRARY(crumb, m) {
  m.def(
      "seq_fake_quantize(Tensor weight, Tensor log_scale, int group_size=0, str outside_gradient=\"zero\", ScalarType? "
      "dtype=None) -> Tensor",
      fake_quantize_op);
  m.def("seq_forward(Tensor weight, Tensor scale, int group_size=0, ScalarType? dtype=None) -> Tensor");
  m.def(
      "seq_backward(Tensor weight, Tensor scale, Tensor grad, int group_size=0, str outside_gradient=\"zero\")"
      " -> (Tensor, Tensor)");
  m.def("seq_codes(Tensor weight, Tensor scale, int group_size=0) -> Tensor");
}

TORCH_LIBRARY_IMPL(crumb, CPU, m) {
  m.impl("seq_forward", forward_on<Cpu>);
  m.impl("seq_backward", backward_on<Cpu>);
  m.impl("seq_codes", codes_on<Cpu>);
}
#ifdef CRUMB_CUDA_KERNELS
TORCH_LIBRARY_IMPL(crumb, CUDA, m) {
  m.impl("seq_forward", forward_on<Cuda>);
  m.impl("seq_backward", backward_on<Cuda>);
  m.impl("seq_codes", codes_on<Cuda>);
}
#endif

TORCH_LIBRARY_IMPL(crumb, Meta, m) {
  m.impl("seq_forward", forward_meta);
  m.impl("seq_backward", backward_meta);
  m.impl("seq_codes", codes_meta);
}

TORCH_LIBRARY_IMPL(crumb, CompositeExplicitAutograd, m) {
  m.impl("seq_forward", forward_composite);
  m.impl("seq_backward", backward_composite);
  m.impl("seq_codes", codes_composite);
}

}  // namespace crumb::kernels
