#include "model/head_loss.h"
#include "train/objective.h"

namespace crumb::train {
namespace {

model::HeadLossInput head_input(const Batch& batch, const model::DecoderOutput& output, const torch::Tensor& head) {
  model::HeadLossInput input;
  input.hidden = output.final_hidden.flatten(0, 1);
  input.head = head;
  input.targets = batch.targets.flatten();
  if (batch.mask.defined()) input.mask = batch.mask.flatten();
  input.compute = output.compute;
  return input;
}

class CrossEntropy : public Objective {
 public:
  Loss loss(const Batch& batch, const model::DecoderOutput& output, const torch::Tensor& head,
            double total_supervised) override {
    const kernels::LogitLossWeights weights{.kl = 0.0, .cross_entropy = 1.0, .temperature = 1.0};
    const model::HeadLoss result = model::head_loss(head_input(batch, output, head), weights, total_supervised);
    return {.total = result.total, .parts = {{"cross_entropy", result.cross_entropy}}};
  }
  EvaluationSums evaluate(const Batch& batch, const model::DecoderOutput& output, const torch::Tensor& head) override {
    const model::HeadScores scores = model::head_scores(head_input(batch, output, head));
    return {.tokens = scores.tokens, .cross_entropy = scores.cross_entropy, .kl = 0, .top1 = scores.top_is_target};
  }
};

}  // namespace

std::unique_ptr<Objective> make_cross_entropy() { return std::make_unique<CrossEntropy>(); }

}  // namespace crumb::train
