#include "model/ops.h"

namespace crumb::model {

namespace composite {

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps, torch::ScalarType out) {
  const torch::Tensor x32 = x.scalar_type() == torch::kBFloat16 ? x.to(torch::kFloat32) : x;
  return (x32 * (x32.square().mean(-1, true) + eps).rsqrt() * weight).to(out);
}

torch::Tensor rope(const torch::Tensor& x, const torch::Tensor& cos, const torch::Tensor& sin) {
  const int64_t half = cos.size(1);
  const torch::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);  // [tokens, 1, half]
  const torch::Tensor a = x.narrow(-1, 0, half), b = x.narrow(-1, half, half), rest = x.narrow(-1, 2 * half, x.size(-1) - 2 * half);
  return torch::cat({(a * c - b * s).to(x.scalar_type()), (b * c + a * s).to(x.scalar_type()), rest}, -1);
}

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) { return torch::silu(gate) * up; }

}  // namespace composite

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps, torch::ScalarType out) {
  return composite::rms_norm(x, weight, eps, out);
}

torch::Tensor rope(const torch::Tensor& x, const torch::Tensor& cos, const torch::Tensor& sin) { return composite::rope(x, cos, sin); }

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) { return composite::swiglu(gate, up); }

}  // namespace crumb::model
