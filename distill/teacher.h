// The model a student learns from.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <vector>

#include "core/arch/decoder_spec.h"
#include "core/tokenizer/tokenizer.h"
#include "model/decoder.h"

namespace crumb::distill {

/// A frozen float decoder: the student's own checkpoint ("self") or another one with the same vocabulary.
class Teacher {
 public:
  explicit Teacher(std::shared_ptr<model::Decoder> decoder);
  /// Builds the decoder with plain float linears.
  Teacher(const arch::DecoderSpec& spec, const model::TensorSource& source);

  /// Computes on `device` in `compute` from now on. Its weights never change, so they are cast here, once: in bfloat16
  /// they take half the memory.
  void prepare(torch::Device device, torch::ScalarType compute);

  /// No gradients. ids [batch, tokens].
  model::DecoderOutput forward(const torch::Tensor& ids, const std::vector<int>& wanted_layers = {});
  /// [vocab, hidden] in float32.
  torch::Tensor head_weight();
  const arch::DecoderSpec& spec() const { return decoder_->spec(); }
  const model::Decoder& decoder() const { return *decoder_; }

 private:
  std::shared_ptr<model::Decoder> decoder_;
};

/// UserError when the models predict over different numbers of ids.
void check_vocabulary_size(const arch::DecoderSpec& student, const arch::DecoderSpec& teacher);
/// UserError naming the first id whose pieces differ: equal sizes do not make equal vocabularies.
void check_same_pieces(const tokenizer::Tokenizer& student, const tokenizer::Tokenizer& teacher);

}  // namespace crumb::distill
