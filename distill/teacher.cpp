#include "distill/teacher.h"

#include "core/common/error.h"

namespace crumb::distill {

void check_vocabulary_size(const arch::DecoderSpec& student, const arch::DecoderSpec& teacher) {
  CRUMB_CHECK(student.vocab_size == teacher.vocab_size,
              "teacher: its vocabulary has {} ids, the model's {}; a teacher must share the model's vocabulary",
              teacher.vocab_size, student.vocab_size);
}

void check_same_pieces(const tokenizer::Tokenizer& student, const tokenizer::Tokenizer& teacher) {
  CRUMB_CHECK(student.vocab_size() == teacher.vocab_size(),
              "teacher: its tokenizer has {} ids, the model's {}; a teacher must share the model's vocabulary",
              teacher.vocab_size(), student.vocab_size());
  if (const auto id = first_difference(student, teacher))
    user_error(
        "teacher: id {} is \"{}\" in its vocabulary and \"{}\" in the model's; a teacher must share the "
        "model's vocabulary",
        *id, teacher.piece(*id), student.piece(*id));
}

}  // namespace crumb::distill
