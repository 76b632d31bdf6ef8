#include "jobs/train_start.h"

#include <algorithm>
#include <cmath>

#include "core/arch/hf_config.h"
#include "core/arch/spec_compare.h"
#include "core/common/error.h"
#include "model/float_model.h"
#include "ptq/rotation.h"
#include "qat/start.h"

namespace crumb::jobs {

void require_trainable(const TrainJob& job, const quant::Checkpoint& checkpoint) {
  CRUMB_CHECK(!job.quantizes() || checkpoint.kind() != quant::CheckpointKind::codes,
              "model: {} is quantized already; give the model it was made from (init_from goes on from a finished run)",
              job.model.source().string());
}

void check_quantized_start(const TrainJob& job, const quant::Checkpoint& start, const arch::DecoderSpec& model) {
  const Path& folder = start.path();
  CRUMB_CHECK(start.kind() == quant::CheckpointKind::codes, "method.init: {} is no quantized folder", folder.string());
  arch::DecoderSpec expected = model;
  expected.tied_head = start.spec().tied_head;  // a rotation may have untied it
  const auto differences = arch::differences(expected, start.spec());
  if (!differences.empty()) {
    const auto& first = differences[0];
    user_error("method.init: {} was not made of {}: {} is {}, and {} there", folder.string(),
               job.model.source().string(), first.field, first.second, first.first);
  }
  const auto formats = planned_formats(job, start.spec());
  for (const auto& stored : start.tensors()) {
    const auto found = formats.find(stored.desc.hf_name);
    const auto wanted = found == formats.end() ? std::nullopt : std::optional(found->second);
    const auto words = [](const std::optional<quant::QuantFormat>& format) {
      return format ? fmt::format("{}, group_size {}", format->title(), format->group_size) : std::string("float");
    };
    CRUMB_CHECK(stored.format == wanted,
                "method.init: {} of {} is {}, the job has {}; give the job the keys of the one it was made by",
                stored.desc.module_name(), folder.string(), words(stored.format), words(wanted));
  }
}

namespace {

/// A fine-tune of the same shape is another model: some rows of the embedding tell.
void check_same_embedding(const quant::Checkpoint& model, const quant::Checkpoint& start, const TrainJob& job) {
  constexpr int64_t kRows = 64;
  constexpr float kRounding = 0x1p-7f;  // bf16's, and some more
  const auto& desc = model.tensor(arch::TensorId{arch::Slot::embedding}).desc;
  const int64_t rows = std::min(kRows, desc.rows()), count = rows * desc.cols();
  std::vector<float> a(static_cast<size_t>(count)), b(a.size());
  model.read_rows(model.tensor(desc.id), 0, rows, a.data());
  start.read_rows(start.tensor(desc.id), 0, rows, b.data());
  for (size_t i = 0; i < a.size(); ++i) {
    CRUMB_CHECK(std::fabs(a[i] - b[i]) <= kRounding * std::fabs(a[i]) + 1e-6f,
                "method.init: {} was not made of {}: its embedding has other values", start.path().string(),
                job.model.source().string());
  }
}

}  // namespace

TrainStart open_train_start(const TrainJob& job) {
  TrainStart start;
  if (job.model.is_random()) {
    start.spec = arch::load_hf_spec(job.model.source());
    start.config = model::read_hf_config(job.model.source());
    start.write_companions = [from = job.model.tokenizer_folder()](const Path& to) {
      quant::copy_companions(from, to);
    };
    start.tokenizer = tokenizer::load_tokenizer(job.model.tokenizer_folder());
    start.source = start.self = model::random_source(start.spec, static_cast<uint64_t>(job.seed));
    const bool fits = start.tokenizer->vocab_size() <= start.spec.vocab_size;
    CRUMB_CHECK(fits, "{}: the tokenizer has {} ids, the configuration {} rows of the embedding",
                job.model.tokenizer_folder().string(), start.tokenizer->vocab_size(), start.spec.vocab_size);
    return start;
  }
  CRUMB_CHECK(is_there(job.model.source()), "model: {} does not exist", job.model.source().string());
  start.model = quant::open_checkpoint(job.model.source());
  require_trainable(job, *start.model);
  quant::warn_about_dequantization(*start.model);
  const Path* folder = job.quantizes() ? job.qat()->start() : nullptr;
  if (folder != nullptr) {
    start.quantized = quant::open_checkpoint(*folder);
    check_quantized_start(job, *start.quantized, start.model->spec());
    const auto rotation = ptq::rotation_of(start.quantized->hf_config(), (*folder / "config.json").string());
    if (rotation) start.rotated = ptq::rotate(*start.model, *rotation);
    CRUMB_CHECK(
        !rotation || !rotation->residual || job.teacher.is_word() || job.objective.hidden_mse == 0,
        "objective.hidden_mse: the states of {} are rotated, those of another teacher are not; leave teacher: self, or "
        "set hidden_mse to 0",
        folder->string());
    check_same_embedding(start.rotated != nullptr ? *start.rotated : *start.model, *start.quantized, job);
  }
  const quant::Checkpoint& checkpoint = start.checkpoint();
  start.spec = checkpoint.spec();
  start.config = checkpoint.hf_config();
  start.config.erase("quantization_config");
  start.write_companions = [&checkpoint](const Path& to) { checkpoint.write_companions(to); };
  start.tokenizer = checkpoint.load_tokenizer();
  quant::check_vocabulary(checkpoint, *start.tokenizer);
  start.self = model::checkpoint_source(start.rotated != nullptr ? *start.rotated : *start.model);
  start.source = start.quantized != nullptr ? model::TensorSource(qat::Masters(checkpoint)) : start.self;
  return start;
}

}  // namespace crumb::jobs
