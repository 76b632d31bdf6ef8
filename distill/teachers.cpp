#include "distill/teachers.h"

#include "core/common/log.h"
#include "distill/model_teacher.h"
#include "quant/activations.h"
#include "quant/checkpoint.h"

namespace crumb::distill {

Teachers make_teachers(const ObjectiveOptions& objective, const Student& student, const Path& other, bool has_baseline,
                       torch::Device device, torch::ScalarType compute) {
  const auto make = [&](const arch::DecoderSpec& spec, const model::TensorSource& source) {
    auto teacher = std::make_shared<ModelTeacher>(spec, source);
    teacher->prepare(device, compute);
    return teacher;
  };
  Teachers teachers;
  if (has_baseline || (other.empty() && needs_teacher(objective)))
    teachers.baseline = make(student.spec, student.source);
  if (!other.empty() && needs_teacher(objective)) {
    const auto checkpoint = quant::open_checkpoint(other);
    if (const auto activations = quant::activations_of(*checkpoint))
      log_warning("teacher: {} rounds activations ({}); it teaches with those it would have without", other.string(),
                  activations->title());
    check_same_pieces(student.tokenizer, *checkpoint->load_tokenizer());
    teachers.teacher = make(checkpoint->spec(), model::checkpoint_source(*checkpoint));
  } else {
    teachers.teacher = teachers.baseline;
  }
  if (!teachers.baseline) teachers.baseline = teachers.teacher;
  return teachers;
}

}  // namespace crumb::distill
