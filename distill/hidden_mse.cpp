#include "distill/hidden_mse.h"

#include <optional>

namespace crumb::distill {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Squared norm of each token, [batch, tokens], without a temporary of x's size.
torch::Tensor token_squares(const torch::Tensor& x) {
  return at::linalg_vector_norm(x, 2, at::IntArrayRef{2}).square();
}

/// Weights of squared distances, [batch, tokens], or [batch, 1] where the tokens of a window have the same. `teacher`
/// is 0 where the mask is.
torch::Tensor distance_weights(const torch::Tensor& teacher, const torch::Tensor& mask, HiddenNormalize normalize) {
  const int64_t batch = teacher.size(0);
  if (normalize == HiddenNormalize::none) return torch::ones({batch, 1}, teacher.options());
  torch::Tensor squares = token_squares(teacher), count = torch::ones({}, teacher.options());
  if (normalize == HiddenNormalize::window) {
    squares = squares.sum(1, /*keepdim=*/true);
    count = mask.defined() ? mask.sum(1, /*keepdim=*/true) : torch::full({}, teacher.size(1), teacher.options());
  }
  return torch::where(squares > 0, count / squares, torch::zeros_like(squares));
}

/// The gradient is made in the forward pass: it is the difference times its weight, so the difference itself
/// need not be kept.
struct HiddenMse : torch::autograd::Function<HiddenMse> {
  /// `mask` as an optional: autograd refuses an undefined tensor among the arguments.
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& student, const torch::Tensor& teacher,
                               const std::optional<torch::Tensor>& mask, HiddenNormalize normalize) {
    const torch::Tensor shares = mask ? mask->to(student.scalar_type()) : torch::Tensor();
    const auto supervised = [&](const torch::Tensor& x) { return shares.defined() ? x * shares.unsqueeze(2) : x; };
    torch::Tensor difference = student - teacher;
    if (shares.defined()) difference.mul_(shares.unsqueeze(2));
    const torch::Tensor weights = distance_weights(supervised(teacher), shares, normalize);
    const torch::Tensor total = (token_squares(difference) * weights).sum();
    ctx->saved_data["gradient"] = difference.mul_((weights * 2).unsqueeze(2));
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
                         HiddenNormalize normalize) {
  return HiddenMse::apply(student, teacher, mask.defined() ? std::optional(mask) : std::nullopt, normalize);
}

}  // namespace crumb::distill
