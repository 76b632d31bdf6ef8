// The classic distillation loss: a weighted sum of the divergence from a teacher, the distance of hidden states, and
// cross-entropy.
//
//   loss = kl * T^2 * KL(teacher_T || student_T) + hidden_mse * H + cross_entropy * CE,     T = temperature
//
// KL and CE are means over the supervised tokens of the optimizer step, in nats. Hinton et al., arXiv:1503.02531.
// H with normalisation: the mean over the chosen layers and over tokens of mean((h_s - h_t)^2) / mean(h_t^2), both
// means taken over the supervised tokens of one window, so that a window counts alike in any micro-batch. Without: the
// sum over layers of ||h_s - h_t||^2 a token.
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
