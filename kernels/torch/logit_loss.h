// Losses and scores of rows of logits (kernels/divergence.h) on tensors:
//
//   torch.ops.crumb.logit_loss_(Tensor(a!) student, Tensor(b!)? teacher, Tensor targets, Tensor row_weights,
//     float[] weights, float temperature=1.0, float jsd_beta=0.5) -> Tensor
//   torch.ops.crumb.logit_scores(Tensor student, Tensor? teacher, Tensor targets) -> Tensor
//
// `weights` are in the order of LossTerms: kl, reverse_kl, jsd, cakld, cross_entropy.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/divergence.h"

namespace crumb::kernels {

/// student [rows, vocab] becomes the gradient of sum(row_weights * loss); teacher [rows, vocab] is used as scratch and
/// may be absent when !needs_teacher. targets [rows] int64; row_weights [rows] of the logits' type. Returns the terms
/// of each row without weights, [rows, kNumLossTerms] float64. Logits are contiguous; float32, or float64 composed of
/// Torch's operators.
at::Tensor logit_loss_(const at::Tensor& student, const std::optional<at::Tensor>& teacher, const at::Tensor& targets,
                       const at::Tensor& row_weights, const LogitLossSpec& spec);

/// Sums over the rows, [4] float64: KL(teacher || student), cross-entropy, rows whose largest logits agree (0 without
/// a teacher), rows whose largest logit is the target's.
at::Tensor logit_scores(const at::Tensor& student, const std::optional<at::Tensor>& teacher, const at::Tensor& targets);

/// For the schemas: a term a number.
std::vector<double> to_list(const LossTerms& terms);
LogitLossSpec loss_spec(at::ArrayRef<double> weights, double temperature, double jsd_beta);

}  // namespace crumb::kernels
