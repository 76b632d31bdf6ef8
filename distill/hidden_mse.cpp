#include "distill/hidden_mse.h"

#include <optional>

namespace crumb::distill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Squared norm of each window, [batch], without a temporary of x's size.
torch::Tensor window_squares(const torch::Tensor& x) {
  return at::linalg_vector_norm(x, 2, at::IntArrayRef{1, 2}).square();
}

/// Weight of each window's squared distance, [batch].
torch::Tensor window_weights(const torch::Tensor& teacher, const torch::Tensor& mask, bool normalize) {
  const int64_t batch = teacher.size(0);
  if (!normalize) return torch::ones({batch}, teacher.options());
  const torch::Tensor count = mask.defined() ? mask.sum(1) : torch::full({batch}, teacher.size(1), teacher.options());
  const torch::Tensor squares = window_squares(teacher);
  return torch::where(squares > 0, count / squares, torch::zeros_like(squares));
}

/// The gradient is made in the forward pass: it is the difference times the window's weight, so the difference itself
/// need not be kept.
struct HiddenMse : torch::autograd::Function<HiddenMse> {
  /// `mask` as an optional: autograd refuses an undefined tensor among the arguments.
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& student, const torch::Tensor& teacher,
                               const std::optional<torch::Tensor>& mask, bool normalize) {
    const torch::Tensor shares = mask ? mask->to(student.scalar_type()) : torch::Tensor();
    const auto supervised = [&](const torch::Tensor& x) { return shares.defined() ? x * shares.unsqueeze(2) : x; };
    torch::Tensor difference = student - teacher;
    if (shares.defined()) difference.mul_(shares.unsqueeze(2));
    const torch::Tensor weights = window_weights(supervised(teacher), shares, normalize);
    const torch::Tensor total = (window_squares(difference) * weights).sum();
    ctx->saved_data["gradient"] = difference.mul_((weights * 2).view({-1, 1, 1}));
    return total;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const torch::Tensor gradient = ctx->saved_data["gradient"].toTensor();
    ctx->saved_data.clear();
    return {gradient * grads[0], {}, {}, {}};
  }
};

}  // namespace

torch::Tensor hidden_mse(const torch::Tensor& student, const torch::Tensor& teacher, const torch::Tensor& mask,
                         bool normalize) {
  return HiddenMse::apply(student, teacher, mask.defined() ? std::optional(mask) : std::nullopt, normalize);
}

}  // namespace crumb::distill
