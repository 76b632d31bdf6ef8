#include "distill/teacher.h"

#include "core/common/error.h"

namespace crumb::distill {

Teacher::Teacher(std::shared_ptr<model::Decoder> decoder) : decoder_(std::move(decoder)) {
  decoder_->eval();
  for (auto& parameter : decoder_->parameters()) parameter.set_requires_grad(false);
}

Teacher::Teacher(const arch::DecoderSpec& spec, const model::TensorSource& source)
    : Teacher(std::make_shared<model::Decoder>(spec, source)) {}

void Teacher::prepare(torch::Device device, torch::ScalarType compute) {
  decoder_->to(device);
  decoder_->compute = compute;
  for (const auto& [name, linear] : decoder_->linears()) linear->weight.set_data(linear->weight.to(compute));
}

model::DecoderOutput Teacher::forward(const torch::Tensor& ids, const std::vector<int>& wanted_layers) {
  const torch::NoGradGuard no_grad;
  return decoder_->forward(ids, wanted_layers);
}

torch::Tensor Teacher::head_weight() { return decoder_->head_weight().detach(); }

void check_vocabulary_size(const arch::DecoderSpec& student, const arch::DecoderSpec& teacher) {
  CRUMB_CHECK(student.vocab_size == teacher.vocab_size,
              "teacher: its vocabulary has {} ids, the model's {}; a teacher must share the model's vocabulary",
              teacher.vocab_size, student.vocab_size);
}

void check_same_pieces(const tokenizer::Tokenizer& student, const tokenizer::Tokenizer& teacher) {
  CRUMB_CHECK(student.vocab_size() == teacher.vocab_size(),
              "teacher: its tokenizer has {} ids, the model's {}; a teacher must share the model's vocabulary",
              teacher.vocab_size(), student.vocab_size());
  for (tokenizer::TokenId id = 0; id < student.vocab_size(); ++id) {
    CRUMB_CHECK(student.piece(id) == teacher.piece(id),
                "teacher: id {} is \"{}\" in its vocabulary and \"{}\" in the model's; a teacher must share the "
                "model's vocabulary",
                id, teacher.piece(id), student.piece(id));
  }
}

}  // namespace crumb::distill
