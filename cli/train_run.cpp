#include "cli/train_run.h"

#include <ATen/Parallel.h>

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "cli/float_model.h"
#include "core/arch/hf_config.h"
#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/thread_pool.h"
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

constexpr double kScaleShare = 0.01;  // auto: a step of the median row as a share of its scale
constexpr double kAutoScaleRate = 1e-3;
constexpr double kRandomRate = 1e-3;  // auto without quantization, at 512 hidden units

/// What a run makes in its output folder.
constexpr const char* kOwnFiles[] = {"job.yaml", "log.jsonl", "curves.html", "checkpoints", "model",
                                     "last",     "export",    "report.json", "report.md",   "tokens"};

bool is_empty_folder(const Path& folder) { return fs::is_directory(folder) && fs::is_empty(folder); }

/// Takes over an output folder: a run of this job goes on, an empty place is a new run, anything else is refused.
void claim_output(TrainJob& job, bool force) {
  const Path stored_path = job.output / "job.yaml";
  if (force) {
    for (const char* name : kOwnFiles) fs::remove_all(job.output / name);
  }
  if (fs::exists(stored_path)) {
    const ConfigValue stored = parse_yaml_file(stored_path), now = write_config(job);
    const auto changes = changes_not_allowed(stored, now);
    CRUMB_CHECK(changes.empty(), "{} holds a run of another job ({}); choose another output, or --force to start again",
                job.output.string(), fmt::join(changes, "; "));
    job = read_config<TrainJob>(with_stored_autos(stored, now));
    return;
  }
  const bool is_free = !fs::exists(job.output) || is_empty_folder(job.output);
  if (!is_free && !force)
    user_error("{} exists and is not a training run; choose another output, or --force to use it", job.output.string());
  require_new_output(job.output, true);
  make_folders(job.output);
  require_new_output(job.output / "job.yaml", true);  // tells an unwritable folder before the work
}

/// The model a run starts from.
struct Start {
  std::unique_ptr<quant::Checkpoint> checkpoint;  // null: random values
  arch::DecoderSpec spec;
  nlohmann::json config;
  std::vector<Path> companions;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  model::TensorSource source;
};

Start open_start(const TrainJob& job) {
  Start start;
  if (job.model.is_random) {
    start.spec = arch::load_hf_spec(job.model.path);
    start.config = read_hf_config(job.model.path);
    start.companions = tokenizer_files(job.model.tokenizer_folder());
    start.tokenizer = tokenizer::load_tokenizer(job.model.tokenizer_folder());
    start.source = model::random_source(start.spec, static_cast<uint64_t>(job.seed));
    const bool fits = start.tokenizer->vocab_size() <= start.spec.vocab_size;
    CRUMB_CHECK(fits, "{}: the tokenizer has {} ids, the configuration {} rows of the embedding",
                job.model.tokenizer_folder().string(), start.tokenizer->vocab_size(), start.spec.vocab_size);
    return start;
  }
  CRUMB_CHECK(fs::exists(job.model.path), "model: {} does not exist", job.model.path.string());
  CRUMB_CHECK(fs::is_directory(job.model.path),
              "model: {}: training starts from an HF folder (config.json, *.safetensors, tokenizer.json), not from a "
              "GGUF or other file",
              job.model.path.string());
  start.checkpoint = quant::open_checkpoint(job.model.path);
  start.spec = start.checkpoint->spec();
  start.config = start.checkpoint->hf_config();
  start.config.erase("quantization_config");
  start.companions = start.checkpoint->companion_files();
  start.tokenizer = start.checkpoint->load_tokenizer();
  quant::check_vocabulary(*start.checkpoint, *start.tokenizer);
  start.source = model::checkpoint_source(*start.checkpoint);
  return start;
}

torch::Device choose_device(TrainJob& job) {
  const bool has_cuda = torch::cuda::is_available();
  if (job.device == "auto") job.device = has_cuda ? "cuda" : "cpu";
  CRUMB_CHECK(job.device != "cuda" || has_cuda,
              "device: cuda, but Torch sees no GPU (this build or this machine has none); use device: cpu");
  if (job.device == "cuda") log_warning("device: cuda runs the same code, but has not been tested");
  return job.device == "cuda" ? torch::Device(torch::kCUDA) : torch::Device(torch::kCPU);
}

torch::ScalarType choose_compute(TrainJob& job) {
  if (job.compute == "auto") job.compute = job.device == "cuda" || kernels::has_fast_bf16() ? "bf16" : "fp32";
  return job.compute == "bf16" ? torch::kBFloat16 : torch::kFloat32;
}

void choose_threads(TrainJob& job) {
  if (job.threads.is_auto()) job.threads = static_cast<int64_t>(available_processors());
  setenv("MKL_DYNAMIC", "FALSE", 0);  // else MKL may use fewer threads than asked, and sums would change
  at::set_num_threads(static_cast<int>(*job.threads.value));
}

/// Texts as token streams, split into what is trained on and what is held out.
struct Data {
  std::vector<train::MixedStream> train;
  std::vector<train::TokenStream> valid;
};

std::string names_of(const std::vector<Path>& paths) {
  return paths.size() == 1 ? paths[0].string() : fmt::format("{} and {} more", paths[0].string(), paths.size() - 1);
}

Data open_data(const TrainJob& job, const train::TextEncoder& encoder, int64_t length) {
  ThreadPool pool(static_cast<int>(job.threads.value_or(0)));
  const Path cache = train::token_cache_folder(job.output / "tokens");
  const double share = job.data.valid.is_share() ? job.data.valid.share : 0.0;
  const auto open = [&](const std::vector<Path>& texts) {
    return std::make_shared<const train::TokenFile>(
        train::open_token_file(texts, job.data.separator, encoder, cache, pool.as_parallel_for()));
  };
  Data data;
  const auto add = [&](const std::vector<Path>& texts, double weight) {
    auto split = train::split_text(open(texts), share, length, static_cast<uint64_t>(job.seed), names_of(texts));
    data.train.push_back({std::move(split.train), weight});
    if (split.valid.size() > 0) data.valid.push_back(std::move(split.valid));
  };
  std::vector<Path> unweighted;
  for (const auto& source : job.data.train.sources) {
    if (source.is_weighted() && source.weight > 0) add({source.path}, source.weight);
    if (!source.is_weighted()) unweighted.push_back(source.path);
  }
  if (!unweighted.empty()) add(unweighted, 1.0);
  if (!job.data.valid.is_share()) {
    data.valid.push_back(
        train::split_text(open({job.data.valid.path}), 0, length, 0, job.data.valid.path.string()).train);
  }
  CRUMB_CHECK(!data.valid.empty(), "data.valid: a share of 0 leaves nothing to validate on");
  return data;
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

std::shared_ptr<distill::Teacher> make_teacher(const TrainJob& job, const Start& start, torch::Device device,
                                               torch::ScalarType compute) {
  if (!job.quantizes() && !distill::needs_teacher(job.objective)) return nullptr;
  std::unique_ptr<quant::Checkpoint> other;
  if (!job.teacher.path.empty()) {
    other = quant::open_checkpoint(job.teacher.path);
    distill::check_same_pieces(*start.tokenizer, *other->load_tokenizer());
  }
  auto teacher = other ? std::make_shared<distill::Teacher>(other->spec(), model::checkpoint_source(*other))
                       : std::make_shared<distill::Teacher>(start.spec, start.source);
  teacher->decoder().to(device);
  teacher->decoder().compute = compute;
  return teacher;
}

std::unique_ptr<train::Objective> make_objective(const TrainJob& job, const Start& start, torch::Device device,
                                                 torch::ScalarType compute) {
  return distill::distill_objective(job.objective, start.spec, make_teacher(job, start, device, compute));
}

void load_earlier_run(const TrainJob& job, const std::vector<TrainedParameter>& parameters) {
  if (job.init_from.path.empty()) return;
  const auto folder = train::newest_checkpoint(job.init_from.path);
  CRUMB_CHECK(folder.has_value(), "init_from: {} holds no training checkpoint", job.init_from.path.string());
  train::load_masters(*folder, parameters);
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
  return [&](const Path& folder) { save_float_model(folder, decoder, start.config, start.companions); };
}

std::function<std::map<std::string, double>()> movement_observer(const TrainJob& job, const model::Decoder& decoder) {
  if (!job.quantizes()) return {};
  const auto movement = std::make_shared<qat::Movement>(decoder);
  return [movement]() -> std::map<std::string, double> {
    const auto report = movement->report();
    return {{"flipped_share", report.flipped_share},
            {"weight_distance", report.weight_distance},
            {"scale_distance", report.scale_distance}};
  };
}

Path export_path(const TrainJob& job, const std::string& target) {
  return job.output / "export" / (target.starts_with("gguf-") ? target + ".gguf" : target);
}

void export_and_judge(TrainResult& result) {
  const TrainJob& job = result.job;
  for (const auto& target : job.export_targets) {
    make_folders(job.output / "export");
    const auto checkpoint = quant::open_checkpoint(job.output / "model");
    const exporting::ExportOptions options{.target = target,
                                           .embedding_type = "",
                                           .head_type = "",
                                           .force = true,
                                           .threads = static_cast<int>(job.threads.value_or(0))};
    result.exports.push_back(export_path(job, target));
    exporting::export_checkpoint(*checkpoint, result.exports.back(), options);
  }
  if (job.evaluate.texts.empty()) return;
  eval::EvalOptions options = job.evaluate;
  options.model = job.output / "model";
  if (!job.model.is_random) options.baseline = job.model.path;
  options.threads = job.threads.value_or(0);
  result.evaluation = eval::evaluate(options);
  write_text(job.output / "report.json", eval::to_json(*result.evaluation).dump(2) + "\n");
  write_text(job.output / "report.md", eval::to_markdown(*result.evaluation));
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
  auto data = open_data(job, {tokenizer.get(), train::tokenizer_identity(folder)}, length);
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
  claim_output(job, force);
  choose_threads(job);
  const torch::Device device = choose_device(job);
  const torch::ScalarType compute = choose_compute(job);
  const Start start = open_start(job);
  const int64_t length = train::choose_sequence_length(job.data, start.spec.context_length);
  const train::TextEncoder encoder{start.tokenizer.get(), train::tokenizer_identity(job.model.tokenizer_folder())};
  Data data = open_data(job, encoder, length);
  train::Sampler sampler(std::move(data.train), length, static_cast<uint64_t>(job.seed));
  const train::ValidationSet validation(data.valid, length, job.validate.windows);
  const train::Plan plan = train::make_plan(job.schedule, length, sampler.num_windows());
  resolve_schedule(job, plan);

  qat::check_group_size(job.method, start.spec);
  model::Decoder decoder(start.spec, start.source, qat::linear_factory(job.method));
  decoder.to(device);
  decoder.compute = compute;
  decoder.round_small_tensors = true;
  auto parameters = trained_parameters(decoder, job.train);
  load_earlier_run(job, parameters);
  TrainResult result;
  result.median_scale = median_scale(decoder);
  resolve_rates(job, result.median_scale, start.spec.hidden_size);
  if (job.quantizes()) set_row_factors(parameters, decoder, result.median_scale);
  write_text(job.output / "job.yaml", to_yaml(write_config(job)));

  const auto objective = make_objective(job, start, device, compute);
  const train::TrainerParts parts{decoder,
                                  *objective,
                                  parameters,
                                  sampler,
                                  validation,
                                  model_saver(job, decoder, start),
                                  movement_observer(job, decoder)};
  const train::TrainerOptions options{.optimizer = job.optimizer,
                                      .schedule = job.schedule,
                                      .validate = job.validate,
                                      .checkpoint = job.checkpoint,
                                      .plan = plan,
                                      .device = device,
                                      .title = "train " + job.output.filename().string()};
  log_info("{} steps of {} tokens, learning rate {:.3g}, {} threads, {}", format_count(plan.steps),
           format_count(plan.batch_tokens()), *job.optimizer.lr.value, *job.threads.value, job.compute);
  result.summary = train::run_training(parts, options, job.output);
  result.job = std::move(job);
  if (!result.summary.is_stopped) export_and_judge(result);
  return result;
}

}  // namespace crumb::cli
