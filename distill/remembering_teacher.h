// A teacher that is asked once for windows that come again: those of validation.
#pragma once

#include <map>
#include <memory>
#include <utility>

#include "distill/teacher.h"

namespace crumb::distill {

/// Keeps the answers of another teacher in memory, up to `most_bytes` of states; what does not fit is asked each time.
class RememberingTeacher : public Teacher {
 public:
  explicit RememberingTeacher(std::shared_ptr<Teacher> asked, int64_t most_bytes = int64_t{256} << 20)
      : asked_(std::move(asked)), room_(most_bytes) {}

  TeacherOutput outputs(const torch::Tensor& ids, const std::vector<int>& layers = {},
                        const torch::Tensor& documents = {}) override;
  const arch::DecoderSpec& spec() const override { return asked_->spec(); }

 private:
  using Question = std::pair<std::vector<int64_t>, std::vector<int>>;  // shape, ids and documents; layers

  std::shared_ptr<Teacher> asked_;
  std::map<Question, TeacherOutput> answers_;
  int64_t room_;
};

}  // namespace crumb::distill
