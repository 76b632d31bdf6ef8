#include "distill/objective.h"

#include <map>
#include <vector>

#include "core/common/error.h"
#include "distill/hidden_mse.h"
#include "model/head_loss.h"

namespace crumb::distill {
namespace {

/// Final hidden states of a teacher, which never changes, on windows that come again: those of validation. What does
/// not fit is computed each time.
class FinalStates {
 public:
  torch::Tensor of(Teacher& teacher, const torch::Tensor& ids) {
    const torch::Tensor on_cpu = ids.to(torch::kCPU).contiguous();
    const std::vector<int64_t> key(on_cpu.const_data_ptr<int64_t>(), on_cpu.const_data_ptr<int64_t>() + on_cpu.numel());
    const auto found = states_.find(key);
    if (found != states_.end()) return found->second;
    const torch::Tensor states = teacher.forward(ids).final_hidden;
    const auto bytes = static_cast<int64_t>(states.nbytes());
    if (bytes_ + bytes <= kMostBytes) {
      bytes_ += bytes;
      states_.emplace(key, states);
    }
    return states;
  }

 private:
  static constexpr int64_t kMostBytes = int64_t{256} << 20;
  std::map<std::vector<int64_t>, torch::Tensor> states_;
  int64_t bytes_ = 0;
};

class DistillObjective : public train::Objective {
 public:
  DistillObjective(const ObjectiveOptions& options, const arch::DecoderSpec& student, std::shared_ptr<Teacher> teacher,
                   std::shared_ptr<Teacher> baseline)
      : options_(options), teacher_(std::move(teacher)), baseline_(baseline ? std::move(baseline) : teacher_) {
    if (options_.hidden_mse == 0) return;
    for (const auto& [mine, teachers] :
         hidden_layer_map(options_, student.num_layers(), teacher_->spec().num_layers())) {
      student_layers_.push_back(mine);
      teacher_layers_.push_back(teachers);
    }
  }

  std::vector<int> wanted_layers() const override { return student_layers_; }
  bool has_teacher() const override { return baseline_ != nullptr; }

  train::Loss loss(const train::Batch& batch, const model::DecoderOutput& output, const torch::Tensor& head,
                   double total_supervised) override {
    const model::DecoderOutput taught =
        needs_teacher(options_) ? teacher_->forward(batch.ids, teacher_layers_) : model::DecoderOutput{};
    const kernels::LogitLossWeights weights{
        .kl = options_.kl, .cross_entropy = options_.cross_entropy, .temperature = options_.temperature};
    train::Loss result{.total = torch::zeros({}, output.final_hidden.options()), .parts = {}};
    if (options_.kl != 0 || options_.cross_entropy != 0) {
      const auto logits = model::head_loss(
          head_input(batch, output, head, taught, teacher_ ? teacher_->head_weight() : torch::Tensor()), weights,
          total_supervised, options_.chunk_tokens);
      result.total = logits.total;
      if (options_.kl != 0) result.parts["kl"] = logits.kl;
      if (options_.cross_entropy != 0) result.parts["cross_entropy"] = logits.cross_entropy;
    }
    if (options_.hidden_mse != 0) {
      const torch::Tensor distance = hidden_distance(batch, output, taught) / total_supervised;
      result.total = result.total + options_.hidden_mse * distance;
      result.parts["hidden_mse"] = distance.item<double>();
    }
    return result;
  }

  train::EvaluationSums evaluate(const train::Batch& batch, const model::DecoderOutput& output,
                                 const torch::Tensor& head) override {
    model::DecoderOutput taught;
    torch::Tensor baseline_head;
    if (baseline_ != nullptr) {
      taught.final_hidden = baseline_states_.of(*baseline_, batch.ids);
      baseline_head = baseline_->head_weight();
    }
    const auto scores =
        model::head_scores(head_input(batch, output, head, taught, baseline_head), options_.chunk_tokens);
    return {.tokens = scores.tokens,
            .cross_entropy = scores.cross_entropy,
            .kl = scores.kl,
            .top1 = baseline_ != nullptr ? scores.same_top : scores.top_is_target};
  }

 private:
  model::HeadLossInput head_input(const train::Batch& batch, const model::DecoderOutput& output,
                                  const torch::Tensor& head, const model::DecoderOutput& taught,
                                  const torch::Tensor& teacher_head) const {
    model::HeadLossInput input;
    input.hidden = output.final_hidden.flatten(0, 1);
    input.head = head;
    if (taught.final_hidden.defined()) {
      input.teacher_hidden = taught.final_hidden.flatten(0, 1);
      input.teacher_head = teacher_head;
    }
    input.targets = batch.targets.flatten();
    if (batch.mask.defined()) input.mask = batch.mask.flatten();
    input.compute = output.compute;
    return input;
  }

  /// Sum over supervised tokens.
  torch::Tensor hidden_distance(const train::Batch& batch, const model::DecoderOutput& output,
                                const model::DecoderOutput& taught) const {
    torch::Tensor sum = torch::zeros({}, output.final_hidden.options());
    for (size_t i = 0; i < student_layers_.size(); ++i) {
      sum = sum + hidden_mse(output.hidden.at(student_layers_[i]), taught.hidden.at(teacher_layers_[i]), batch.mask,
                             options_.hidden_normalize);
    }
    return options_.hidden_normalize ? sum / static_cast<double>(student_layers_.size()) : sum;
  }

  ObjectiveOptions options_;
  std::shared_ptr<Teacher> teacher_, baseline_;
  FinalStates baseline_states_;
  std::vector<int> student_layers_, teacher_layers_;  // pairs by position
};

}  // namespace

std::unique_ptr<train::Objective> distill_objective(const ObjectiveOptions& options, const arch::DecoderSpec& student,
                                                    std::shared_ptr<Teacher> teacher,
                                                    std::shared_ptr<Teacher> baseline) {
  CRUMB_CHECK(options.kl != 0 || options.hidden_mse != 0 || options.cross_entropy != 0,
              "objective: all weights are 0; give at least one of kl, hidden_mse, cross_entropy");
  CRUMB_CHECK(
      !needs_teacher(options) || teacher != nullptr,
      "objective: kl and hidden_mse need a teacher; set teacher: self or a folder, or use cross_entropy: 1 with kl: 0");
  if (baseline != nullptr) check_vocabulary_size(student, baseline->spec());
  if (teacher != nullptr) {
    check_vocabulary_size(student, teacher->spec());
    CRUMB_CHECK(options.hidden_mse == 0 || student.hidden_size == teacher->spec().hidden_size,
                "objective.hidden_mse: the teacher's hidden size is {}, the model's {}; set it to 0 for this teacher",
                teacher->spec().hidden_size, student.hidden_size);
  }
  return std::make_unique<DistillObjective>(options, student, std::move(teacher), std::move(baseline));
}

}  // namespace crumb::distill
