#include "cli/train_run.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <optional>

#include "cli/float_model.h"
#include "cli/train_data.h"
#include "cli/train_disk.h"
#include "cli/train_memory.h"
#include "cli/train_output.h"
#include "core/arch/hf_config.h"
#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/common/rng.h"
#include "core/common/thread_pool.h"
#include "core/formats/gguf.h"
#include "distill/objective.h"
#include "distill/teacher.h"
#include "eval/report.h"
#include "export/export.h"
#include "kernels/cpu_features.h"
#include "model/decoder.h"
#include "qat/convert.h"
#include "qat/linear_factory.h"
#include "qat/movement.h"
#include "qat/seq_linear.h"
#include "quant/checkpoint.h"

namespace crumb::cli {
namespace {

namespace fs = std::filesystem;
using train::ParameterKind;
using train::TrainedParameter;

constexpr double kScaleShare = 0.006;  // auto: a step of the median row as a share of its scale
constexpr double kAutoScaleRate = 1e-3;
constexpr double kRandomRate = 1e-3;  // auto without quantization, at 512 hidden units

/// The model a run starts from.
struct Start {
  std::unique_ptr<quant::Checkpoint> checkpoint;  // null: random values
  arch::DecoderSpec spec;
  nlohmann::json config;
  std::function<void(const Path&)> write_companions;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  model::TensorSource source;
};

Start open_start(const TrainJob& job) {
  Start start;
  if (job.model.is_random) {
    start.spec = arch::load_hf_spec(job.model.path);
    start.config = read_hf_config(job.model.path);
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
  CRUMB_CHECK(fs::exists(job.model.path), "model: {} does not exist", job.model.path.string());
  start.checkpoint = quant::open_checkpoint(job.model.path);
  CRUMB_CHECK(!job.quantizes() || start.checkpoint->kind() != quant::CheckpointKind::codes,
              "model: {} is quantized already; give the model it was made from (init_from goes on from a finished run)",
              job.model.path.string());
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

torch::Device choose_device(TrainJob& job) {
  if (job.device == "auto") job.device = uses_cuda(job) ? "cuda" : "cpu";
  CRUMB_CHECK(job.device != "cuda" || uses_cuda(job),
              "device: cuda, but Torch sees no GPU (this build or this machine has none); use device: cpu");
  return job.device == "cuda" ? torch::Device(torch::kCUDA) : torch::Device(torch::kCPU);
}

torch::ScalarType choose_compute(TrainJob& job) {
  if (job.compute == "auto") job.compute = job.device == "cuda" || kernels::has_fast_bf16() ? "bf16" : "fp32";
  return job.compute == "bf16" ? torch::kBFloat16 : torch::kFloat32;
}

void choose_threads(TrainJob& job) {
  if (job.threads.is_auto()) job.threads = static_cast<int64_t>(available_processors());
  setenv("MKL_DYNAMIC", "FALSE", 1);  // else MKL may use fewer threads than asked, and sums would change
  at::set_num_threads(static_cast<int>(*job.threads.value));
}

/// Scales of the SEQ linears at this moment, one number a row.
torch::Tensor row_scales(const qat::SeqLinearImpl& linear) { return linear.log_scale.detach().exp().mean(1); }

double median_scale(const model::Decoder& decoder) {
  std::vector<torch::Tensor> rows;
  for (const auto& [name, linear] : decoder.linears()) {
    if (const auto* seq = dynamic_cast<const qat::SeqLinearImpl*>(linear.get())) rows.push_back(row_scales(*seq));
  }
  return rows.empty() ? 0.0 : torch::cat(rows).median().item<double>();
}

void resolve_rates(TrainJob& job, double median, int64_t hidden_size) {
  if (job.optimizer.scale_lr.is_auto()) job.optimizer.scale_lr = kAutoScaleRate;
  if (!job.optimizer.lr.is_auto()) return;
  const double plain = kRandomRate * std::sqrt(512.0 / static_cast<double>(hidden_size));
  job.optimizer.lr = job.quantizes() ? kScaleShare * median : job.model.is_random ? plain : plain / 20;
}

void resolve_schedule(TrainJob& job, const train::Plan& plan) {
  job.data.sequence_length = plan.sequence_length;
  job.schedule.batch_tokens = plan.batch_tokens();
  job.schedule.micro_batch = plan.micro_windows;
  if (job.schedule.tokens.is_auto()) job.schedule.tokens = plan.tokens;
}

/// What the student learns from, and what validation compares it with: the model it was made from, which is the teacher
/// unless the job names another.
struct Teachers {
  std::shared_ptr<distill::Teacher> teacher, baseline;
};

Teachers make_teachers(const TrainJob& job, const Start& start, torch::Device device, torch::ScalarType compute) {
  const auto make = [&](const arch::DecoderSpec& spec, const model::TensorSource& source) {
    auto teacher = std::make_shared<distill::Teacher>(spec, source);
    teacher->decoder().to(device);
    teacher->decoder().compute = compute;
    return teacher;
  };
  Teachers teachers;
  if (job.quantizes() || (job.teacher.path.empty() && distill::needs_teacher(job.objective)))
    teachers.baseline = make(start.spec, start.source);
  if (!job.teacher.path.empty() && distill::needs_teacher(job.objective)) {
    const auto other = quant::open_checkpoint(job.teacher.path);
    distill::check_same_pieces(*start.tokenizer, *other->load_tokenizer());
    teachers.teacher = make(other->spec(), model::checkpoint_source(*other));
  } else {
    teachers.teacher = teachers.baseline;
  }
  if (!teachers.baseline) teachers.baseline = teachers.teacher;
  return teachers;
}

std::unique_ptr<train::Objective> make_objective(const TrainJob& job, const Start& start, torch::Device device,
                                                 torch::ScalarType compute) {
  const Teachers teachers = make_teachers(job, start, device, compute);
  return distill::distill_objective(job.objective, start.spec, teachers.teacher, teachers.baseline);
}

/// A run that goes on cannot have fewer steps than it has done; with more, its learning rate rises again.
void check_progress(const TrainJob& job, const train::Plan& plan, bool force) {
  const auto newest = force ? std::nullopt : train::newest_checkpoint(job.output);
  if (!newest) return;
  const int64_t done = train::checkpoint_step(*newest);
  CRUMB_CHECK(done <= plan.steps, "schedule.tokens: {} is less than the {} that the run in {} has done",
              format_count(plan.tokens), format_count(done * plan.batch_tokens()), job.output.string());
  if (done < plan.steps && fs::exists(job.output / "last"))
    log_warning("a finished run goes on: its learning rate had come to its end and rises again");
}

/// Every value that the earlier run trained, whether this one trains it or not.
void load_earlier_run(const TrainJob& job, model::Decoder& decoder) {
  const Path& run = job.init_from.path;
  if (run.empty()) return;
  const auto folder = train::newest_checkpoint(run);
  CRUMB_CHECK(folder.has_value(), "init_from: {} holds no training checkpoint", run.string());
  CRUMB_CHECK(fs::exists(run / "last"), "init_from: the run in {} has not finished", run.string());
  const std::string damage = train::damage_of(*folder);
  CRUMB_CHECK(damage.empty(), "init_from: {} is damaged ({}); run its job again, which goes on from the one before it",
              folder->string(), damage);
  const train::TrainedParts all{.linears = true, .norms = true, .biases = true, .embeddings = true, .head = true};
  train::load_masters(*folder, trained_parameters(decoder, all));
}

/// Tells other weights under the same path.
std::string model_fingerprint(const Path& path) {
  uint64_t h = hash_name("model");
  std::vector<Path> files;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(path, none)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  if (fs::is_regular_file(path))
    files = path.extension() == ".json" ? std::vector{path} : formats::GgufReader(path).files();
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    if (fs::is_regular_file(file)) h = hash_file_sample(hash_word(h, hash_name(file.filename().string())), file);
  }
  return fmt::format("{:016x}", h);
}

/// What must be the same when the run goes on, beside the job itself.
std::map<std::string, std::string> fingerprints(const TrainJob& job, const TrainData& data) {
  std::map<std::string, std::string> out{{"text", fmt::format("{:016x}", data.key)},
                                         {"model", model_fingerprint(job.model.path)}};
  if (!job.teacher.path.empty()) out["teacher"] = model_fingerprint(job.teacher.path);
  if (!job.init_from.path.empty())
    out["run of init_from"] = model_fingerprint(train::newest_checkpoint(job.init_from.path).value());
  return out;
}

/// Larger scales take larger steps: quantized rows move in proportion to their scale, the median row by the learning
/// rate.
void set_row_factors(std::vector<TrainedParameter>& parameters, const model::Decoder& decoder, double median) {
  for (const auto& [name, linear] : decoder.linears()) {
    const auto* seq = dynamic_cast<const qat::SeqLinearImpl*>(linear.get());
    if (seq == nullptr) continue;
    for (auto& p : parameters) {
      if (p.name == name + ".weight") p.row_factor = (row_scales(*seq) / median).contiguous();
    }
  }
}

std::function<void(const Path&)> model_saver(const TrainJob& job, model::Decoder& decoder, const Start& start) {
  if (job.quantizes())
    return [&](const Path& folder) { qat::save_model(folder, decoder, *start.checkpoint, job.method); };
  return [&](const Path& folder) { save_float_model(folder, decoder, start.config, start.write_companions); };
}

std::function<std::map<std::string, double>()> movement_observer(const model::Decoder& decoder,
                                                                 const std::vector<TrainedParameter>& parameters) {
  const auto movement = std::make_shared<qat::Movement>(decoder, parameters);
  return [movement]() -> std::map<std::string, double> {
    const auto report = movement->report();
    if (!movement->has_codes()) return {{"weight_distance", report.weight_distance}};
    return {{"flipped_share", report.flipped_share},
            {"weight_distance", report.weight_distance},
            {"scale_distance", report.scale_distance}};
  };
}

Path export_path(const TrainJob& job, const std::string& target) {
  return job.output / "export" / (target.starts_with("gguf-") ? target + ".gguf" : target);
}

exporting::ExportOptions export_options(const TrainJob& job, const std::string& target) {
  return {.target = target,
          .embedding_type = "",
          .head_type = "",
          .force = true,
          .threads = static_cast<int>(job.threads.value_or(0))};
}

/// What would fail after the training, fill the disk, or come out otherwise than its name promises, is told before it.
void check_ending(const TrainJob& job, const arch::DecoderSpec& spec, const tokenizer::Tokenizer& tokenizer) {
  const auto formats = planned_formats(job, spec);
  std::vector<exporting::ExportPlan> plans;
  for (const auto& target : job.export_targets) {
    const auto& plan = plans.emplace_back(exporting::plan_export(spec, formats, export_options(job, target)));
    exporting::check_vocabulary_exports(spec, tokenizer, target);
    log_info("export {}", plan.summary());
    for (const auto& warning : plan.warnings) log_warning("export {}: {}", target, warning);
  }
  for (const auto& text : job.evaluate.texts)
    CRUMB_CHECK(fs::is_regular_file(text), "evaluate.text: {} is not a file", text.string());
  CRUMB_CHECK(!job.model.is_random || job.evaluate.max_drop.size() == 0,
              "evaluate.max_drop: a model of random values has no baseline to drop from");
  warn_about_space(estimate_disk(job, spec, formats, plans), job.output);
}

void export_all(TrainResult& result) {
  const TrainJob& job = result.job;
  for (const auto& target : job.export_targets) {
    make_folders(job.output / "export");
    const auto checkpoint = quant::open_checkpoint(job.output / "model");
    result.exports.push_back(export_path(job, target));
    exporting::export_checkpoint(*checkpoint, result.exports.back(), export_options(job, target));
  }
}

/// Judges `model` by the job's texts; the report goes to `report` with .json and .md.
eval::EvalResult judge(const TrainJob& job, const Path& model, const Path& report) {
  eval::EvalOptions options = job.evaluate;
  options.model = model;
  if (!job.model.is_random) options.baseline = job.model.path;
  options.threads = job.threads.value_or(0);
  auto result = eval::evaluate(options);
  write_text(report.string() + ".json", dump_json(eval::to_json(result), 2) + "\n");
  write_text(report.string() + ".md", eval::to_markdown(result));
  return result;
}

/// model/ and every exported file: what a file keeps its embedding in is a loss of its own.
void export_and_judge(TrainResult& result) {
  const TrainJob& job = result.job;
  export_all(result);
  if (job.evaluate.texts.empty()) return;
  result.evaluations.push_back(judge(job, job.output / "model", job.output / "report"));
  for (const auto& file : result.exports) {
    const Path report = file.parent_path() / (file.stem().string() + ".report");
    result.evaluations.push_back(judge(job, file, report));
  }
}

}  // namespace

bool is_trained(arch::TensorRole role, const train::TrainedParts& parts, bool tied_head) {
  switch (role) {
    case arch::TensorRole::embedding:
      return parts.embeddings || (tied_head && parts.head);
    case arch::TensorRole::head:
      return parts.head;
    case arch::TensorRole::linear:
      return parts.linears;
    case arch::TensorRole::norm:
      return parts.norms;
    case arch::TensorRole::bias:
      return parts.biases;
  }
  return false;
}

int64_t count_windows(const TrainJob& job, int64_t length) {
  const Path folder = job.model.tokenizer_folder();
  const auto tokenizer = tokenizer::load_tokenizer(folder);
  const train::TextEncoder encoder{tokenizer.get(), train::tokenizer_identity(folder)};
  auto data = open_train_data(job, encoder, length, fs::temp_directory_path() / "crumb-tokens");
  return train::Sampler(std::move(data.train), length, 0).num_windows();
}

std::vector<TrainedParameter> trained_parameters(model::Decoder& decoder, const train::TrainedParts& parts) {
  std::vector<TrainedParameter> out;
  for (auto& parameter : decoder.parameters()) parameter.set_requires_grad(false);
  const auto add = [&out](const std::string& name, torch::Tensor value, ParameterKind kind) {
    value.set_requires_grad(true);
    out.push_back({name, std::move(value), kind, {}});
  };
  for (const auto& desc : arch::tensor_table(decoder.spec())) {
    if (!is_trained(desc.role, parts, decoder.spec().tied_head)) continue;
    const bool is_small = desc.role == arch::TensorRole::norm || desc.role == arch::TensorRole::bias;
    add(desc.hf_name, decoder.parameter(desc), is_small ? ParameterKind::small : ParameterKind::weight);
  }
  for (const auto& [name, linear] : decoder.linears()) {
    if (const auto* seq = dynamic_cast<const qat::SeqLinearImpl*>(linear.get()); seq != nullptr && parts.linears) {
      add(name + ".log_scale", seq->log_scale, ParameterKind::scale);
    }
  }
  CRUMB_CHECK(!out.empty(), "train: nothing is to be trained");
  return out;
}

TrainResult run_train_job(TrainJob job, bool force) {
  std::optional<FolderLock> lock;
  if (fs::is_directory(job.output)) lock.emplace(job.output);
  check_train_output(job, force);
  choose_threads(job);
  const torch::Device device = choose_device(job);
  const torch::ScalarType compute = choose_compute(job);
  const Start start = open_start(job);
  check_ending(job, start.spec, *start.tokenizer);
  const int64_t length = train::choose_sequence_length(job.data, start.spec.context_length);
  const train::TextEncoder encoder{start.tokenizer.get(), train::tokenizer_identity(job.model.tokenizer_folder())};
  TrainData data = open_train_data(job, encoder, length, job.output / "tokens");
  train::Sampler sampler(std::move(data.train), length, static_cast<uint64_t>(job.seed));
  const train::ValidationSet validation(data.valid, length, job.validate.windows);
  const train::Plan plan =
      train::make_plan(job.schedule, length, sampler.num_windows(), auto_micro_tokens(job, start.spec));
  resolve_schedule(job, plan);

  qat::check_group_size(job.method, start.spec);
  model::Decoder decoder(start.spec, start.source, qat::linear_factory(job.method));
  decoder.to(device);
  decoder.compute = compute;
  decoder.round_small_tensors = true;
  load_earlier_run(job, decoder);
  qat::warn_about_clamped_scales(decoder);
  auto parameters = trained_parameters(decoder, job.train);
  TrainResult result;
  result.median_scale = median_scale(decoder);
  resolve_rates(job, result.median_scale, start.spec.hidden_size);
  if (job.quantizes()) set_row_factors(parameters, decoder, result.median_scale);
  const auto objective = make_objective(job, start, device, compute);
  quant::warn_unmatched_excludes(start.spec, job.method);
  check_progress(job, plan, force);
  claim_train_output(job, force);
  if (!lock) lock.emplace(job.output);
  write_text(job.output / "job.yaml", to_yaml(write_config(job)));

  const train::TrainerParts parts{decoder,
                                  *objective,
                                  parameters,
                                  sampler,
                                  validation,
                                  model_saver(job, decoder, start),
                                  movement_observer(decoder, parameters)};
  const train::TrainerOptions options{.optimizer = job.optimizer,
                                      .schedule = job.schedule,
                                      .validate = job.validate,
                                      .checkpoint = job.checkpoint,
                                      .plan = plan,
                                      .device = device,
                                      .title = "train " + job.output.filename().string(),
                                      .inputs = fingerprints(job, data)};
  log_info("{} steps of {} tokens, learning rate {:.3g}, {} threads, {}", format_count(plan.steps),
           format_count(plan.batch_tokens()), *job.optimizer.lr.value, *job.threads.value, job.compute);
  result.summary = train::run_training(parts, options, job.output);
  result.job = std::move(job);
  if (!result.summary.is_stopped) {
    qat::warn_about_clamped_scales(decoder);
    export_and_judge(result);
  }
  return result;
}

}  // namespace crumb::cli
