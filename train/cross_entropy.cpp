#include "train/objective.h"

namespace crumb::train {
namespace {

class CrossEntropy : public Objective {
 public:
  Loss loss(const Batch& batch, const model::DecoderOutput& output, const torch::Tensor& head,
            double total_supervised) override {
    const model::HeadLoss result =
        model::head_loss(head_loss_input(batch, output, head), {.weights = {.cross_entropy = 1}}, total_supervised);
    return {.total = result.total, .parts = {{"cross_entropy", result.terms.cross_entropy}}};
  }
  EvaluationSums evaluate(const Batch& batch, const model::DecoderOutput& output, const torch::Tensor& head) override {
    const model::HeadScores scores = model::head_scores(head_loss_input(batch, output, head));
    return {.tokens = scores.tokens, .cross_entropy = scores.cross_entropy, .kl = 0, .top1 = scores.top_is_target};
  }
};

}  // namespace

model::HeadLossInput head_loss_input(const Batch& batch, const model::DecoderOutput& output,
                                     const torch::Tensor& head) {
  model::HeadLossInput input;
  input.hidden = output.final_hidden.flatten(0, 1);
  input.head = head;
  input.targets = batch.targets.flatten();
  if (batch.mask.defined()) input.mask = batch.mask.flatten();
  input.compute = output.compute;
  return input;
}

std::unique_ptr<Objective> make_cross_entropy() { return std::make_unique<CrossEntropy>(); }

}  // namespace crumb::train
