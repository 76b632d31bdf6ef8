// A teacher that is a model in memory.
#pragma once

#include <memory>

#include "distill/teacher.h"
#include "model/decoder.h"

namespace crumb::distill {

/// A frozen float decoder: the student's own checkpoint ("self") or another one with the same vocabulary.
class ModelTeacher : public Teacher {
 public:
  explicit ModelTeacher(std::shared_ptr<model::Decoder> decoder);
  /// Builds the decoder with plain float linears.
  ModelTeacher(const arch::DecoderSpec& spec, const model::TensorSource& source);

  /// Computes on `device` in `compute` from now on. Its weights never change, so they are cast here, once: in bfloat16
  /// they take half the memory.
  void prepare(torch::Device device, torch::ScalarType compute);

  TeacherOutput outputs(const torch::Tensor& ids, const std::vector<int>& layers = {},
                        const torch::Tensor& documents = {}) override;
  const arch::DecoderSpec& spec() const override { return decoder_->spec(); }
  const model::Decoder& decoder() const { return *decoder_; }

 private:
  std::shared_ptr<model::Decoder> decoder_;
};

}  // namespace crumb::distill
