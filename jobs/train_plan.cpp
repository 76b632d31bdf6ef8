#include "jobs/train_plan.h"

#include <ATen/Parallel.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>

#include "core/arch/hf_config.h"
#include "core/common/error.h"
#include "core/common/progress.h"
#include "core/common/thread_pool.h"
#include "jobs/train_data.h"
#include "jobs/train_device.h"
#include "jobs/train_output.h"
#include "jobs/train_start.h"
#include "qat/linear_factory.h"
#include "quant/checkpoint.h"
#include "train/parameters.h"

namespace crumb::jobs {
namespace {

using arch::TensorRole;
using exporting::ExportPlan;

constexpr double kShareOfPeak = 0.5;  // of a plain matrix product's speed, that a training step reaches

/// Runs `part`; a UserError becomes a line of what is unknown, but where all that it reads is there: the run would end
/// with the same error.
template <class Part>
void unless_missing(DryRun& run, const char* what, bool is_all_there, const Part& part) {
  try {
    part();
  } catch (const UserError& e) {
    if (is_all_there) throw;
    run.unknown.push_back(fmt::format("{}: {}", what, e.what()));
  }
}

bool has_tokenizer(const TrainJob& job) {
  const Path folder = job.model.tokenizer_folder();
  return is_there(is_folder(folder) ? folder / "tokenizer.json" : folder);
}

bool has_texts(const TrainJob& job) {
  const auto& sources = job.data.train;
  return std::all_of(sources.begin(), sources.end(), [](const auto& source) { return is_there(source.path); }) &&
         (job.data.valid_path() == nullptr || is_there(*job.data.valid_path()));
}

/// Multiplications and additions of one token's forward pass.
double forward_operations(const arch::DecoderSpec& spec, int64_t length) {
  double weights = static_cast<double>(spec.vocab_size * spec.hidden_size), attention = 0;
  for (const auto& desc : arch::tensor_table(spec))
    weights += desc.role == TensorRole::linear ? static_cast<double>(desc.elements()) : 0.0;
  for (const auto& layer : spec.layers)
    attention += static_cast<double>(layer.gqa().heads * layer.gqa().head_dim * length);
  return 2.0 * (weights + attention);
}

/// Operations a second of a float32 matrix product here.
double measure_speed(int64_t threads) {
  const torch::NoGradGuard no_grad;
  at::set_num_threads(static_cast<int>(threads));
  const torch::Tensor a = torch::ones({512, 512}), b = torch::ones({512, 512});
  double fastest = 1e9;
  for (int product = 0; product < 20; ++product) {  // the fastest: others may use the machine at this moment
    const Stopwatch clock;
    torch::mm(a, b);
    fastest = std::min(fastest, clock.seconds());
  }
  return 2.0 * 512 * 512 * 512 / fastest;
}

int64_t threads_of(const TrainJob& job) { return job.threads.value_or(available_processors()); }

double estimate_seconds(const TrainJob& job, const arch::DecoderSpec& spec, const train::Plan& plan) {
  const double passes = 3.0 + (has_teacher(job) ? 1.0 : 0.0);  // forward, backward by two, teacher
  const double speed = measure_speed(threads_of(job));
  return passes * forward_operations(spec, plan.sequence_length) * static_cast<double>(plan.tokens) /
         (kShareOfPeak * speed);
}

void check_output(const Path& output) {
  Path folder = output;
  while (!folder.empty() && !is_there(folder)) folder = folder.parent_path();
  CRUMB_CHECK(is_folder(folder) && access(folder.c_str(), W_OK | X_OK) == 0, "{} cannot be written", output.string());
}

/// From config.json, and from the weights where they are: they tell whether the head is the embedding.
arch::DecoderSpec read_spec(const TrainJob& job, DryRun& run) {
  if (job.model.is_random()) return arch::load_hf_spec(job.model.source());
  arch::DecoderSpec spec;
  std::unique_ptr<quant::Checkpoint> checkpoint;
  const auto read_weights = [&] {
    checkpoint = quant::open_checkpoint(job.model.source());
    quant::warn_about_dequantization(*checkpoint);
    spec = checkpoint->spec();
    run.source_bytes = checkpoint->file_bytes();
  };
  if (job.model.is_gguf()) {
    read_weights();
  } else {
    spec = arch::load_hf_spec(job.model.source());
    unless_missing(run, "weights", false, read_weights);
  }
  if (checkpoint != nullptr) require_trainable(job, *checkpoint);
  if (const Path* start = job.quantizes() ? job.qat()->start() : nullptr; start != nullptr) {
    const auto quantized = quant::open_checkpoint(*start);
    check_quantized_start(job, *quantized, spec);
    return quantized->spec();
  }
  if (job.rotation.rotates() && checkpoint != nullptr) return ptq::rotate(*checkpoint, job.rotation)->spec();
  if (job.rotation.residual) spec.tied_head = false;  // as it would be of the weights, which are not here
  return spec;
}

exporting::ExportPlan plan_target(const TrainJob& job, const arch::DecoderSpec& spec, const std::string& target) {
  return exporting::plan_export(
      spec, planned_formats(job, spec),
      {.target = target, .embedding_type = "", .head_type = "", .force = false, .threads = 0});
}

/// What the end of the run would refuse is refused here.
void plan_exports(const TrainJob& job, const arch::DecoderSpec& spec, DryRun& run) {
  for (const auto& target : job.export_targets) run.exports.push_back(plan_target(job, spec, target));
  if (job.export_targets.empty() && job.quantizes())  // what the model is for
    unless_missing(run, "export", false, [&] { run.exports.push_back(plan_target(job, spec, "gguf-q2_k")); });
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  unless_missing(run, "tokenizer", has_tokenizer(job),
                 [&] { tokenizer = tokenizer::load_tokenizer(job.model.tokenizer_folder()); });
  if (tokenizer == nullptr) return;
  CRUMB_CHECK(tokenizer->vocab_size() <= spec.vocab_size,
              "{}: the tokenizer has {} ids, the configuration {} rows of the embedding",
              job.model.tokenizer_folder().string(), tokenizer->vocab_size(), spec.vocab_size);
  for (const auto& target : job.export_targets) exporting::check_vocabulary_exports(spec, *tokenizer, target);
}

}  // namespace

DryRun plan_train_job(TrainJob job, bool force) {
  DryRun run;
  check_train_output(job, force);
  check_texts(job);
  const arch::DecoderSpec spec = read_spec(job, run);
  auto formats = planned_formats(job, spec);
  if (const Path* start = job.quantizes() ? job.qat()->start() : nullptr; start != nullptr)
    keep_masks(*quant::open_checkpoint(*start), formats);
  if (job.quantizes()) job.qat()->linears.warn_unmatched(spec);
  run.architecture = arch::architecture_name(spec.architecture);
  run.parameters = arch::parameter_count(spec);
  run.trained = train::count_trained(spec, job.train);
  run.quantized = count_quantized(job, spec);
  const int64_t length = train::choose_sequence_length(job.data, spec.context_length);
  const bool has_text = has_texts(job) && has_tokenizer(job);
  unless_missing(run, "text", has_text, [&] { run.available_windows = count_windows(job, length); });
  unless_missing(run, "steps", has_text, [&] {
    run.plan = train::make_plan(job.schedule, length, run.available_windows.value_or(0), auto_micro_tokens(job, spec));
  });
  if (run.plan) {
    run.memory = estimate_memory(job, spec, *run.plan);
    run.seconds = estimate_seconds(job, spec, *run.plan);
    run.threads = threads_of(job);
    run.compute = compute_type(job);
  }
  if (job.quantizes() && job.qat()->makes_start()) {
    const int64_t there = run.available_windows.value_or(INT64_MAX / length) * length;
    run.calibration_tokens = calibration_tokens(job, there, length);
  }
  unless_missing(run, "output", false, [&] { check_output(job.output); });
  plan_exports(job, spec, run);
  run.disk = estimate_disk(job, spec, formats, job.export_targets.empty() ? std::vector<ExportPlan>{} : run.exports);
  unless_missing(run, "disk", false, [&] { run.free_bytes = free_bytes(job.output); });
  return run;
}

}  // namespace crumb::jobs
