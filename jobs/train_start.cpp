#include "jobs/train_start.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/arch/hf_config.h"
#include "core/arch/spec_compare.h"
#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "model/float_model.h"
#include "ptq/quantize.h"
#include "qat/start.h"
#include "quant/activations.h"

namespace crumb::jobs {

void require_trainable(const TrainJob& job, const quant::Checkpoint& checkpoint) {
  CRUMB_CHECK(!job.quantizes() || checkpoint.kind() != quant::CheckpointKind::codes,
              "model: {} is quantized already; give the model it was made from (init_from goes on from a finished run)",
              job.model.source().string());
  if (const auto activations = quant::activations_of(checkpoint))
    user_error("model: {} rounds activations ({}), which training does not; give the model it was made from",
               job.model.source().string(), activations->title());
}

void keep_masks(const quant::Checkpoint& start, std::map<std::string, quant::QuantFormat>& formats) {
  for (const auto& stored : start.tensors()) {
    const auto found = formats.find(stored.desc.hf_name);
    if (found != formats.end() && stored.format) found->second.has_mask = stored.format->has_mask;
  }
}

void check_quantized_start(const TrainJob& job, const quant::Checkpoint& start, const arch::DecoderSpec& model) {
  const Path& folder = start.path();
  CRUMB_CHECK(start.kind() == quant::CheckpointKind::codes, "method.init: {} is no quantized folder", folder.string());
  if (const auto activations = quant::activations_of(start))
    user_error("method.init: {} rounds activations ({}), which training does not; make it without `activations`",
               folder.string(), activations->title());
  arch::DecoderSpec expected = model;
  expected.tied_head = start.spec().tied_head;  // a rotation may have untied it
  const auto differences = arch::differences(expected, start.spec());
  if (!differences.empty()) {
    const auto& first = differences[0];
    user_error("method.init: {} was not made of {}: {} is {}, and {} there", folder.string(),
               job.model.source().string(), first.field, first.second, first.first);
  }
  auto formats = planned_formats(job, start.spec());
  keep_masks(start, formats);
  for (const auto& stored : start.tensors()) {
    const auto found = formats.find(stored.desc.hf_name);
    const auto wanted = found == formats.end() ? std::nullopt : std::optional(found->second);
    const auto words = [](const std::optional<quant::QuantFormat>& format) {
      return format ? fmt::format("{}, group_size {}", format->title(), format->group_size) : std::string("float");
    };
    CRUMB_CHECK(!stored.format || stored.format->symmetric,
                "method.init: {} of {} is {}, and training knows no zero points; make the start with symmetric: true",
                stored.desc.module_name(), folder.string(), stored.format->title());
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

/// Training begins with the codes and scales of a folder, which fits (check_quantized_start).
void take_folder(std::unique_ptr<quant::Checkpoint> folder, TrainStart& start) {
  start.quantized = std::move(folder);
  start.source = model::TensorSource(qat::Masters(*start.quantized));
}

void open_folder(const TrainJob& job, const Path& folder, TrainStart& start) {
  auto quantized = quant::open_checkpoint(folder);
  check_quantized_start(job, *quantized, start.model->spec());
  const auto rotation = ptq::rotation_of(quantized->hf_config(), (folder / "config.json").string());
  if (rotation) start.rotated = ptq::rotate(*start.model, *rotation);
  CRUMB_CHECK(
      !rotation || !rotation->residual || job.teacher.is_word() || job.objective.hidden_mse == 0,
      "objective.hidden_mse: the states of {} are rotated, those of another teacher are not; leave teacher: self, or "
      "set hidden_mse to 0",
      folder.string());
  check_same_embedding(start.float_model(), *quantized, job);
  take_folder(std::move(quantized), start);
}

/// What `crumb quantize` is asked for by method.init: gptq or blockwise.
ptq::QuantizeJob start_job(const TrainJob& job) {
  ptq::QuantizeJob out;
  out.model = job.model.source();
  out.output = job.output / kStartFolder;
  out.rotation = job.rotation;
  if (std::get<std::string>(job.qat()->init) == ptq::GptqMethod::kName) {
    // as configs/ptq/gptq_seq_w2.yaml (measured in docs/ptq.md)
    out.method = ptq::GptqMethod{.linears = job.qat()->linears, .gptq = {.error_propagation = 0.5}};
  } else {
    out.method = ptq::BlockwiseMethod{.linears = job.qat()->linears, .seed = job.seed};
  }
  if (job.calibration.memory.value) out.calibration.memory = *job.calibration.memory.value;
  out.masters = true;
  return out;
}

}  // namespace

int64_t calibration_tokens(const TrainJob& job, int64_t there, int64_t length) {
  const int64_t wanted = std::max<int64_t>(1, job.calibration.tokens.value_or(ptq::kUsualTokens) / length) * length;
  if (job.calibration.tokens.is_auto()) return std::min(wanted, there);
  CRUMB_CHECK(*job.calibration.tokens.value >= length,
              "calibration.tokens: {} are less than one window of {} (data.sequence_length)",
              *job.calibration.tokens.value, length);
  CRUMB_CHECK(wanted <= there,
              "calibration.tokens: {} asked for, the training text has {} in windows of {}; give more text, or ask for "
              "less",
              *job.calibration.tokens.value, there, length);
  return wanted;
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
  if (job.rotation.rotates()) start.rotated = ptq::rotate(*start.model, job.rotation);
  start.source = model::checkpoint_source(start.float_model());
  if (job.quantizes() && job.qat()->start() != nullptr) open_folder(job, *job.qat()->start(), start);
  const quant::Checkpoint& checkpoint = start.checkpoint();
  start.spec = checkpoint.spec();
  start.config = checkpoint.hf_config();
  start.config.erase("quantization_config");
  start.write_companions = [from = start.model.get()](const Path& to) { from->write_companions(to); };
  start.tokenizer = checkpoint.load_tokenizer();
  quant::check_vocabulary(checkpoint, *start.tokenizer);
  start.self = model::checkpoint_source(start.float_model());
  return start;
}

ptq::CalibrationTokens first_windows(const TrainJob& job, train::Sampler& sampler) {
  const int64_t length = sampler.length();
  const train::Batch batch = sampler.batch(0, calibration_tokens(job, sampler.num_windows() * length, length) / length);
  const torch::Tensor ids = batch.ids.to(torch::kInt).contiguous();
  const int32_t* first = ids.const_data_ptr<int32_t>();
  return {.windows = ids.size(0), .length = length, .ids = {first, first + ids.numel()}};
}

void make_start(const TrainJob& job, const ptq::CalibrationTokens& tokens, TrainStart& start) {
  const ptq::QuantizeJob quantize = start_job(job);
  if (!is_there(quantize.output)) {
    log_info("method.init: {} looks at the first {} tokens of the run, which are not counted among schedule.tokens",
             ptq::method_name(quantize), format_count(tokens.windows * tokens.length));
    ThreadPool pool(static_cast<int>(job.threads.value_or(0)));
    ptq::quantize(quantize, false, pool, &tokens);
  }
  auto made = quant::open_checkpoint(quantize.output);  // perhaps by a run before, of a model that has changed
  check_quantized_start(job, *made, start.float_model().spec());
  check_same_embedding(start.float_model(), *made, job);
  take_folder(std::move(made), start);
}

}  // namespace crumb::jobs
