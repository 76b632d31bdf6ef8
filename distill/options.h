// The `objective:` section of a job; distill/objective.h has the formula.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/common/config.h"

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

}  // namespace crumb::distill
