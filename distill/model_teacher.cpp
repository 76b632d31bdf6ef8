#include "distill/model_teacher.h"

namespace crumb::distill {

ModelTeacher::ModelTeacher(std::shared_ptr<model::Decoder> decoder) : decoder_(std::move(decoder)) {
  decoder_->eval();
  for (auto& parameter : decoder_->parameters()) parameter.set_requires_grad(false);
}

ModelTeacher::ModelTeacher(const arch::DecoderSpec& spec, const model::TensorSource& source)
    : ModelTeacher(std::make_shared<model::Decoder>(spec, source)) {}

void ModelTeacher::prepare(torch::Device device, torch::ScalarType compute) {
  decoder_->to(device);
  decoder_->compute = compute;
  for (const auto& [name, linear] : decoder_->linears()) linear->weight.set_data(linear->weight.to(compute));
}

TeacherOutput ModelTeacher::outputs(const torch::Tensor& ids, const std::vector<int>& layers,
                                    const torch::Tensor& documents) {
  const torch::NoGradGuard no_grad;
  model::DecoderOutput output = decoder_->forward(ids, layers, documents);
  return {.final_hidden = output.final_hidden,
          .head = decoder_->head_weight().detach(),
          .hidden = std::move(output.hidden)};
}

}  // namespace crumb::distill
