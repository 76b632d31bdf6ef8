#include "kernels/torch/adamw.h"

#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include "kernels/torch/op.h"
#include "kernels/torch/where.h"

namespace crumb::kernels {
namespace {

using at::Tensor;
using std::optional;

void check(const Tensor& weight, const Tensor& gradient, const Tensor& m, const Tensor& v,
           const optional<Tensor>& row_factor) {
  TORCH_CHECK(weight.dim() > 0 || !row_factor, "adamw_: a scalar has no rows with factors");
  for (const Tensor* x : {&weight, &m, &v})
    TORCH_CHECK(x->sizes() == weight.sizes() && x->scalar_type() == at::kFloat && x->is_contiguous(),
                "adamw_: weight, m and v must be contiguous float32 of one shape, got ", x->scalar_type(), " ",
                x->sizes(), " beside ", weight.sizes());
  TORCH_CHECK(gradient.sizes() == weight.sizes() && gradient.scalar_type() == at::kFloat,
              "adamw_: the gradient must be float32 ", weight.sizes(), ", got ", gradient.scalar_type(), " ",
              gradient.sizes());
  TORCH_CHECK(!row_factor || (row_factor->dim() == 1 && row_factor->size(0) == weight.size(0) &&
                              row_factor->scalar_type() == at::kFloat),
              "adamw_: row_factor must be float32 [", weight.dim() > 0 ? weight.size(0) : 0, "], got ",
              row_factor ? row_factor->sizes() : at::IntArrayRef());
  check_same_device("adamw_", weight, {gradient, m, v, row_factor.value_or(Tensor())});
}

AdamWStep to_step(double gradient_factor, double beta1, double beta2, double eps, double decay, double step_size,
                  double root_correction) {
  const auto narrow = [](double x) { return static_cast<float>(x); };
  return {.gradient_factor = narrow(gradient_factor),
          .beta1 = narrow(beta1),
          .beta2 = narrow(beta2),
          .eps = narrow(eps),
          .decay = narrow(decay),
          .step_size = narrow(step_size),
          .root_correction = narrow(root_correction)};
}

template <class Where>
void on(const Tensor& weight, const Tensor& gradient, const Tensor& m, const Tensor& v,
        const optional<Tensor>& row_factor, double gradient_factor, double beta1, double beta2, double eps,
        double decay, double step_size, double root_correction) {
  check(weight, gradient, m, v, row_factor);
  const int64_t rows = weight.dim() > 0 ? weight.size(0) : 1, cols = rows > 0 ? weight.numel() / rows : 0;
  const Tensor g = gradient.contiguous(), factor = row_factor ? row_factor->contiguous() : Tensor();
  adamw_update(to_step(gradient_factor, beta1, beta2, eps, decay, step_size, root_correction), rows, cols,
               row_factor ? data<float>(factor) : nullptr, data<float>(g), mutable_data<float>(weight),
               mutable_data<float>(m), mutable_data<float>(v), Where(weight).get());
  for (const Tensor* x : {&weight, &m, &v}) x->unsafeGetTensorImpl()->bump_version();
}

void composite(const Tensor& weight, const Tensor& gradient, const Tensor& m, const Tensor& v,
               const optional<Tensor>& row_factor, double gradient_factor, double beta1, double beta2, double eps,
               double decay, double step_size, double root_correction) {
  check(weight, gradient, m, v, row_factor);
  const Tensor g = gradient * gradient_factor;
  m.mul_(beta1).add_(g, 1.0 - beta1);
  v.mul_(beta2).addcmul_(g, g, 1.0 - beta2);
  Tensor change = m / (v.sqrt() * root_correction + eps) * step_size + weight * decay;
  if (row_factor) {
    std::vector<int64_t> shape(static_cast<size_t>(weight.dim()), 1);
    shape[0] = -1;
    change *= row_factor->view(shape);
  }
  weight.sub_(change);
}

}  // namespace

void adamw_(const Tensor& weight, const Tensor& gradient, const Tensor& m, const Tensor& v,
            const optional<Tensor>& row_factor, const AdamWStep& step) {
  static const auto op = find_op<decltype(composite)>("crumb::adamw_");
  op.call(weight, gradient, m, v, row_factor, step.gradient_factor, step.beta1, step.beta2, step.eps, step.decay,
          step.step_size, step.root_correction);
}

TORCH_LIBRARY_FRAGMENT(crumb, m) {
  m.def(
      "adamw_(Tensor(a!) weight, Tensor gradient, Tensor(b!) m, Tensor(c!) v, Tensor? row_factor,"
      " float gradient_factor=1.0, float beta1=0.9, float beta2=0.95, float eps=1e-8, float decay=0.0,"
      " float step_size=0.0, float root_correction=1.0) -> ()");
}
TORCH_LIBRARY_IMPL(crumb, CPU, m) { m.impl("adamw_", on<Cpu>); }
#ifdef CRUMB_CUDA_KERNELS
TORCH_LIBRARY_IMPL(crumb, CUDA, m) { m.impl("adamw_", on<Cuda>); }
#endif
TORCH_LIBRARY_IMPL(crumb, CompositeExplicitAutograd, m) { m.impl("adamw_", composite); }

}  // namespace crumb::kernels
