// Who a student learns from, as an objective sees it.
#pragma once

#include <torch/torch.h>

#include <map>
#include <vector>

#include "core/arch/decoder_spec.h"
#include "core/tokenizer/tokenizer.h"

namespace crumb::distill {

/// What a teacher says of a batch, without gradients, on the device of its ids.
struct TeacherOutput {
  torch::Tensor final_hidden;           // [batch, tokens, hidden] float32; the logits are final_hidden * head^T
  torch::Tensor head;                   // [vocab, hidden] float32
  std::map<int, torch::Tensor> hidden;  // states after the layers asked for, [batch, tokens, hidden] float32
};

/// A model that runs (distill/model_teacher.h), or anything that knows what one said. It never changes: the same ids
/// get the same answer.
class Teacher {
 public:
  virtual ~Teacher() = default;
  /// ids [batch, tokens] int64; layers from 0; documents: of Decoder::forward.
  virtual TeacherOutput outputs(const torch::Tensor& ids, const std::vector<int>& layers = {},
                                const torch::Tensor& documents = {}) = 0;
  virtual const arch::DecoderSpec& spec() const = 0;
};

/// UserError when the models predict over different numbers of ids.
void check_vocabulary_size(const arch::DecoderSpec& student, const arch::DecoderSpec& teacher);
/// UserError naming the first id whose pieces differ: equal sizes do not make equal vocabularies.
void check_same_pieces(const tokenizer::Tokenizer& student, const tokenizer::Tokenizer& teacher);

}  // namespace crumb::distill
