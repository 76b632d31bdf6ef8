#include "distill/objective.h"

#include <vector>

#include "core/common/error.h"
#include "distill/hidden_mse.h"
#include "distill/remembering_teacher.h"
#include "model/head_loss.h"

namespace crumb::distill {
namespace {

class DistillObjective : public train::Objective {
 public:
  DistillObjective(const ObjectiveOptions& options, const arch::DecoderSpec& student, std::shared_ptr<Teacher> teacher,
                   std::shared_ptr<Teacher> baseline)
      : options_(options),
        spec_(logit_loss_spec(options)),
        normalize_(hidden_normalize(options)),
        teacher_(std::move(teacher)) {
    if (baseline == nullptr) baseline = teacher_;
    if (baseline != nullptr) baseline_ = std::make_shared<RememberingTeacher>(baseline);
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
    const TeacherOutput taught =
        needs_teacher(options_) ? teacher_->outputs(batch.ids, teacher_layers_, batch.documents) : TeacherOutput{};
    train::Loss result{.total = torch::zeros({}, output.final_hidden.options()), .parts = {}};
    if (uses_logits(options_)) {
      const auto logits =
          model::head_loss(head_input(batch, output, head, taught), spec_, total_supervised, options_.chunk_tokens);
      result.total = logits.total;
      for (const auto& [name, value] : kernels::kLossTerms) {
        if (spec_.weights.*value != 0) result.parts[name] = logits.terms.*value;
      }
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
    const TeacherOutput taught =
        baseline_ != nullptr ? baseline_->outputs(batch.ids, {}, batch.documents) : TeacherOutput{};
    const auto scores = model::head_scores(head_input(batch, output, head, taught), options_.chunk_tokens);
    return {.tokens = scores.tokens,
            .cross_entropy = scores.cross_entropy,
            .kl = scores.kl,
            .top1 = baseline_ != nullptr ? scores.same_top : scores.top_is_target};
  }

 private:
  static model::HeadLossInput head_input(const train::Batch& batch, const model::DecoderOutput& output,
                                         const torch::Tensor& head, const TeacherOutput& taught) {
    model::HeadLossInput input = train::head_loss_input(batch, output, head);
    if (taught.final_hidden.defined()) {
      input.teacher_hidden = taught.final_hidden.flatten(0, 1);
      input.teacher_head = taught.head;
    }
    return input;
  }

  /// Sum over supervised tokens.
  torch::Tensor hidden_distance(const train::Batch& batch, const model::DecoderOutput& output,
                                const TeacherOutput& taught) const {
    torch::Tensor sum = torch::zeros({}, output.final_hidden.options());
    for (size_t i = 0; i < student_layers_.size(); ++i) {
      sum = sum + hidden_mse(output.hidden.at(student_layers_[i]), taught.hidden.at(teacher_layers_[i]), batch.mask,
                             normalize_);
    }
    return normalize_ != HiddenNormalize::none ? sum / static_cast<double>(student_layers_.size()) : sum;
  }

  ObjectiveOptions options_;
  kernels::LogitLossSpec spec_;
  HiddenNormalize normalize_;
  std::shared_ptr<Teacher> teacher_, baseline_;
  std::vector<int> student_layers_, teacher_layers_;  // pairs by position
};

}  // namespace

std::unique_ptr<train::Objective> distill_objective(const ObjectiveOptions& options, const arch::DecoderSpec& student,
                                                    std::shared_ptr<Teacher> teacher,
                                                    std::shared_ptr<Teacher> baseline) {
  check_weights(options);
  CRUMB_CHECK(
      !needs_teacher(options) || teacher != nullptr,
      "objective: all but cross_entropy need a teacher; set teacher: self or a folder, or use cross_entropy: 1 with "
      "kl: 0");
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
