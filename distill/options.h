// The `objective:` section of a job; distill/objective.h has the formula.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/common/config.h"
#include "kernels/divergence.h"

namespace crumb::distill {

/// What squared distances of hidden states are divided by: the teacher's mean square over a window, which a few tokens
/// of huge states may make up, over each token alone, or nothing.
enum class HiddenNormalize { window, token, none };

struct ObjectiveOptions {
  double kl = 1.0;
  double reverse_kl = 0.0;
  double jsd = 0.0;
  double cakld = 0.0;
  double hidden_mse = 0.0;
  double cross_entropy = 0.0;
  double temperature = 1.0;
  double jsd_beta = 0.5;
  std::vector<std::string> hidden_layers = {};  // "student:teacher", counted from 0
  std::string hidden_normalize = "window";
  int64_t chunk_tokens = 0;

  template <class Visitor>
  void visit(Visitor& v) {
    v.field("kl", kl, "weight of KL(teacher || student); 1 unless it is given, also beside other terms", {.min = 0});
    v.field("reverse_kl", reverse_kl, "weight of KL(student || teacher), which seeks the teacher's peaks", {.min = 0});
    v.field("jsd", jsd, "weight of the Jensen-Shannon divergence, which is bounded", {.min = 0});
    v.field("cakld", cakld,
            "weight of a mix of reverse_kl and kl by the teacher's confidence in each token (BitDistiller)",
            {.min = 0});
    v.field("hidden_mse", hidden_mse, "weight of the squared distance of hidden states; 4 is a good first try",
            {.min = 0});
    v.field("cross_entropy", cross_entropy, "weight of the next-token cross-entropy", {.min = 0});
    v.field("temperature", temperature,
            "softens student and teacher in the divergences, which are multiplied by its square",
            {.min = 0.01, .max = 100});
    v.field("jsd_beta", jsd_beta,
            "share of the teacher in the mixture that jsd compares with; near 0 jsd / jsd_beta is like kl, near 1 jsd "
            "/ (1 - "
            "jsd_beta) like reverse_kl",
            {.min = 0.01, .max = 0.99});
    v.field("hidden_layers", hidden_layers,
            "pairs \"student:teacher\" of layers for hidden_mse, from 0; empty: every layer of the student, spread "
            "evenly over the teacher's");
    v.field("hidden_normalize", hidden_normalize,
            "divide hidden_mse, layer by layer, by the teacher's mean square over each window, by that of each token, "
            "so that tokens with massive activations count like the others, or by nothing",
            {.choices = {"window", "token", "none"}});
    v.field("chunk_tokens", chunk_tokens, "tokens whose logits exist at once; 0: chosen by the vocabulary", {.min = 0});
  }
};

/// The terms that compare logits, by their weights.
kernels::LogitLossSpec logit_loss_spec(const ObjectiveOptions& options);

/// UserError for a name that is not one of the above.
HiddenNormalize hidden_normalize(const ObjectiveOptions& options);

/// UserError when all weights are 0.
void check_weights(const ObjectiveOptions& options);

/// Whether a term of the logits has a weight.
bool uses_logits(const ObjectiveOptions& options);
/// Whether the loss needs a teacher: anything but cross_entropy has a weight.
bool needs_teacher(const ObjectiveOptions& options);

/// Pairs (student layer, teacher layer) of hidden_mse, by student layer. UserError for text that is not "a:b" or layers
/// that do not exist.
std::vector<std::pair<int, int>> hidden_layer_map(const ObjectiveOptions& options, int64_t student_layers,
                                                  int64_t teacher_layers);

}  // namespace crumb::distill
