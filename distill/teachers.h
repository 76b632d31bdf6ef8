// Which models teach and compare in a job.
#pragma once

#include <memory>

#include "core/tokenizer/tokenizer.h"
#include "distill/options.h"
#include "distill/teacher.h"
#include "model/decoder.h"

namespace crumb::distill {

/// What the student learns from, and what validation compares it with: the model it was made from, which is the teacher
/// unless another one is named.
struct Teachers {
  std::shared_ptr<Teacher> teacher, baseline;
};

/// The student as it begins.
struct Student {
  const arch::DecoderSpec& spec;
  const model::TensorSource& source;
  const tokenizer::Tokenizer& tokenizer;
};

/// `other`: folder or file of a teacher, empty for the student's own start. `has_baseline`: whether validation compares
/// with that start also when nothing is learned from it. Both compute in `compute` on `device`. UserError when the
/// teacher's vocabulary is another one.
Teachers make_teachers(const ObjectiveOptions& objective, const Student& student, const Path& other, bool has_baseline,
                       torch::Device device, torch::ScalarType compute);

}  // namespace crumb::distill
