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

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/arch/decoder_spec.h"
#include "distill/teacher.h"
#include "train/objective.h"

namespace crumb::distill {

struct ObjectiveOptions {
  double kl = 1.0;
  double hidden_mse = 0.0;
  double cross_entropy = 0.0;
  double temperature = 1.0;
  std::vector<std::string> hidden_layers = {};  // "student:teacher", counted from 0
  bool hidden_normalize = true;
  int64_t chunk_tokens = 0;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("kl", kl, "weight of KL(teacher || student)", {.min = 0});
    v.field("hidden_mse", hidden_mse, "weight of the squared distance of hidden states; 4 is a good first try",
            {.min = 0});
    v.field("cross_entropy", cross_entropy, "weight of the next-token cross-entropy", {.min = 0});
    v.field("temperature", temperature, "softens student and teacher in kl, which is multiplied by its square",
            {.min = 0.01, .max = 100});
    v.field("hidden_layers", hidden_layers,
            "pairs \"student:teacher\" of layers for hidden_mse, from 0; empty: every layer of the student, spread "
            "evenly over the teacher's");
    v.field("hidden_normalize", hidden_normalize, "divide hidden_mse by the teacher's mean square, layer by layer");
    v.field("chunk_tokens", chunk_tokens, "tokens whose logits exist at once; 0: chosen by the vocabulary", {.min = 0});
  }
};

/// Whether the loss needs a teacher (kl or hidden_mse is not 0).
bool needs_teacher(const ObjectiveOptions& options);

/// Pairs (student layer, teacher layer) of hidden_mse, by student layer. UserError for text that is not "a:b" or layers
/// that do not exist.
std::vector<std::pair<int, int>> hidden_layer_map(const ObjectiveOptions& options, int64_t student_layers,
                                                  int64_t teacher_layers);

/// `teacher` may be null if !needs_teacher(options). Evaluation reports the divergence from `baseline`, or without one
/// from the teacher, whatever the weights. UserError: a teacher is needed and absent, vocabularies or hidden sizes
/// differ, all weights are 0.
std::unique_ptr<train::Objective> distill_objective(const ObjectiveOptions& options, const arch::DecoderSpec& student,
                                                    std::shared_ptr<Teacher> teacher,
                                                    std::shared_ptr<Teacher> baseline = nullptr);

}  // namespace crumb::distill
