#include "jobs/train_start.h"

#include "core/arch/hf_config.h"
#include "core/common/error.h"
#include "model/float_model.h"

namespace crumb::jobs {

void require_trainable(const TrainJob& job, const quant::Checkpoint& checkpoint) {
  CRUMB_CHECK(!job.quantizes() || checkpoint.kind() != quant::CheckpointKind::codes,
              "model: {} is quantized already; give the model it was made from (init_from goes on from a finished run)",
              job.model.source().string());
}

TrainStart open_train_start(const TrainJob& job) {
  TrainStart start;
  if (job.model.is_random()) {
    start.spec = arch::load_hf_spec(job.model.source());
    start.config = model::read_hf_config(job.model.source());
    start.write_companions = [from = job.model.tokenizer_folder()](const Path& to) {
      quant::copy_companions(from, to);
    };
    start.tokenizer = tokenizer::load_tokenizer(job.model.tokenizer_folder());
    start.source = model::random_source(start.spec, static_cast<uint64_t>(job.seed));
    const bool fits = start.tokenizer->vocab_size() <= start.spec.vocab_size;
    CRUMB_CHECK(fits, "{}: the tokenizer has {} ids, the configuration {} rows of the embedding",
                job.model.tokenizer_folder().string(), start.tokenizer->vocab_size(), start.spec.vocab_size);
    return start;
  }
  CRUMB_CHECK(is_there(job.model.source()), "model: {} does not exist", job.model.source().string());
  start.checkpoint = quant::open_checkpoint(job.model.source());
  require_trainable(job, *start.checkpoint);
  quant::warn_about_dequantization(*start.checkpoint);
  start.spec = start.checkpoint->spec();
  start.config = start.checkpoint->hf_config();
  start.config.erase("quantization_config");
  start.write_companions = [&checkpoint = *start.checkpoint](const Path& to) { checkpoint.write_companions(to); };
  start.tokenizer = start.checkpoint->load_tokenizer();
  quant::check_vocabulary(*start.checkpoint, *start.tokenizer);
  start.source = model::checkpoint_source(*start.checkpoint);
  return start;
}

}  // namespace crumb::jobs
