// Squared distance of a student's hidden states from a teacher's, window by window.
#pragma once

#include <torch/torch.h>

namespace crumb::distill {

/// student, teacher [batch, tokens, width]; mask [batch, tokens] of 0 and 1, or undefined (all 1). Returns a scalar
/// with gradient to student:
///   normalize: sum over windows of  supervised tokens of the window * mean((s - t)^2) / mean(t^2),  means over the
///   supervised tokens else:      sum over supervised tokens of ||s - t||^2
/// Windows without a supervised token count nothing. Divide by the supervised tokens of the step for a mean.
torch::Tensor hidden_mse(const torch::Tensor& student, const torch::Tensor& teacher, const torch::Tensor& mask,
                         bool normalize);

}  // namespace crumb::distill
