// The classic distillation loss: a weighted sum of the divergence from a teacher, the distance of hidden states, and
// cross-entropy.
//
//   loss = kl * KL + reverse_kl * RKL + jsd * JSD + cakld * CAKLD + cross_entropy * CE + hidden_mse * H
//
// The terms of the logits are defined in kernels/divergence.h; they are means over the supervised tokens of the
// optimizer step, in nats.
// H with normalisation: the mean over the chosen layers and over tokens of mean((h_s - h_t)^2) / mean(h_t^2), both
// means taken over the supervised tokens of one window, so that a window counts alike in any micro-batch, or over one
// token. Without: the sum over layers of ||h_s - h_t||^2 a token.
#pragma once

#include <memory>

#include "core/arch/decoder_spec.h"
#include "distill/options.h"
#include "distill/teacher.h"
#include "train/objective.h"

namespace crumb::distill {

/// `teacher` may be null if !needs_teacher(options). Evaluation reports the divergence from `baseline`, or without one
/// from the teacher, whatever the weights. UserError: a teacher is needed and absent, vocabularies or hidden sizes
/// differ, all weights are 0.
std::unique_ptr<train::Objective> distill_objective(const ObjectiveOptions& options, const arch::DecoderSpec& student,
                                                    std::shared_ptr<Teacher> teacher,
                                                    std::shared_ptr<Teacher> baseline = nullptr);

}  // namespace crumb::distill
