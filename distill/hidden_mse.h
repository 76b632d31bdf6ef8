// Squared distance of a student's hidden states from a teacher's, window by window.
#pragma once

#include <torch/torch.h>

#include "distill/options.h"

namespace crumb::distill {

/// student, teacher [batch, tokens, width]; mask [batch, tokens] of 0 and 1, or undefined (all 1). Returns a scalar
/// with gradient to student:
/// - window: sum over windows of supervised tokens of the window * mean((s - t)^2) / mean(t^2), means over those tokens
/// - token: sum over supervised tokens of ||s - t||^2 / ||t||^2
/// - none: sum over supervised tokens of ||s - t||^2
///
/// Windows without a supervised token, and tokens or windows where t is 0 under normalisation, count nothing. Divide by
/// the supervised tokens of the step for a mean.
torch::Tensor hidden_mse(const torch::Tensor& student, const torch::Tensor& teacher, const torch::Tensor& mask,
                         HiddenNormalize normalize);

}  // namespace crumb::distill
