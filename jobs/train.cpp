#include "jobs/train.h"

#include <memory>
#include <optional>

#include "core/common/error.h"
#include "core/common/log.h"
#include "distill/objective.h"
#include "distill/teachers.h"
#include "jobs/train_data.h"
#include "jobs/train_device.h"
#include "jobs/train_ending.h"
#include "jobs/train_memory.h"
#include "jobs/train_output.h"
#include "jobs/train_start.h"
#include "model/float_model.h"
#include "ptq/rotation.h"
#include "qat/convert.h"
#include "qat/linear_factory.h"
#include "qat/movement.h"
#include "qat/quant_linear.h"
#include "qat/rates.h"
#include "qat/start.h"
#include "quant/fingerprint.h"
#include "train/parameters.h"
#include "train/trainer.h"

namespace crumb::jobs {
namespace {

void resolve_schedule(TrainJob& job, const train::Plan& plan) {
  job.data.sequence_length = plan.sequence_length;
  job.schedule.batch_tokens = plan.batch_tokens();
  job.schedule.micro_batch = plan.micro_windows;
  if (job.schedule.tokens.is_auto()) job.schedule.tokens = plan.tokens;
}

/// A run that goes on cannot have fewer steps than it has done; with more, its learning rate rises again.
void check_progress(const TrainJob& job, const train::Plan& plan, bool force) {
  const auto newest = force ? std::nullopt : train::newest_checkpoint(job.output);
  if (!newest) return;
  const int64_t done = train::checkpoint_step(*newest);
  CRUMB_CHECK(done <= plan.steps, "schedule.tokens: {} is less than the {} that the run in {} has done",
              format_count(plan.tokens), format_count(done * plan.batch_tokens()), job.output.string());
  if (done < plan.steps && is_there(job.output / "last") && job.validate.patience.is_word())
    log_warning("a finished run goes on: its learning rate had come to its end and rises again");
}

/// What an earlier run has pruned would come back in a run that does not know of it.
void check_same_masks(const Path& run, const model::Decoder& decoder) {
  const auto earlier = quant::open_checkpoint(run / "last");
  for (const auto& stored : earlier->tensors()) {
    if (!stored.format || !stored.format->has_mask) continue;
    const auto linear = std::dynamic_pointer_cast<qat::QuantLinear>(decoder.linear(stored.desc.id));
    const bool is_same = linear != nullptr && linear->format().has_mask &&
                         linear->quantized().mask == earlier->read_codes(stored, 0, stored.desc.rows()).mask;
    CRUMB_CHECK(is_same, "init_from: {} of the run in {} is pruned, and not so here; begin with its method.init",
                stored.desc.module_name(), run.string());
  }
}

/// Weights of rotated and of plain models do not go together, and what is not trained stays as it is here.
void check_same_rotation(const Path& run, const nlohmann::json& config) {
  const Path there = run / "last" / "config.json";
  const auto earlier = ptq::rotation_of(model::read_hf_config(run / "last"), there.string());
  CRUMB_CHECK(earlier == ptq::rotation_of(config, "config.json"),
              "init_from: the run in {} is of a model rotated otherwise; begin with its method.init and rotation",
              run.string());
}

/// Every value that the earlier run trained, whether this one trains it or not.
void load_earlier_run(const TrainJob& job, const nlohmann::json& config, model::Decoder& decoder) {
  if (job.init_from.is_word()) return;
  const Path& run = *job.init_from.value;
  const auto folder = train::newest_checkpoint(run);
  CRUMB_CHECK(folder.has_value(), "init_from: {} holds no training checkpoint", run.string());
  CRUMB_CHECK(is_there(run / "last"), "init_from: the run in {} has not finished", run.string());
  const std::string damage = train::damage_of(*folder);
  CRUMB_CHECK(damage.empty(), "init_from: {} is damaged ({}); run its job again, which goes on from the one before it",
              folder->string(), damage);
  check_same_rotation(run, config);
  check_same_masks(run, decoder);
  const train::TrainedParts all{.linears = true, .norms = true, .biases = true, .embeddings = true, .head = true};
  train::load_masters(*folder, train::trained_parameters(decoder, all));
}

/// What must be the same when the run goes on, beside the job itself.
std::map<std::string, std::string> fingerprints(const TrainJob& job, const TrainData& data) {
  std::map<std::string, std::string> out{{"text", fmt::format("{:016x}", data.key)}};
  const auto add = [&out](const std::string& name, const Path& path) {
    out[name] = quant::weights_fingerprint(path);
    const std::string config = quant::config_fingerprint(path);
    if (!config.empty()) out["configuration of " + name] = config;
  };
  add("model", job.model.source());
  if (job.teacher.value) add("teacher", *job.teacher.value);
  if (const auto folder = job.start_folder()) add("folder of method.init", *folder);
  if (job.init_from.value)
    out["run of init_from"] = quant::weights_fingerprint(train::newest_checkpoint(*job.init_from.value).value());
  return out;
}

std::function<void(const Path&)> model_saver(const TrainJob& job, model::Decoder& decoder, const TrainStart& start) {
  if (const qat::QatMethod* method = job.qat(); method != nullptr) {
    return [&, method](const Path& folder) {
      qat::save_model(folder, decoder, start.checkpoint(), method->linears.exclude);
    };
  }
  return [&](const Path& folder) { model::save_float_model(folder, decoder, start.config, start.write_companions); };
}

std::function<std::map<std::string, double>()> movement_observer(
    const model::Decoder& decoder, const std::vector<train::TrainedParameter>& parameters) {
  const auto movement = std::make_shared<qat::Movement>(decoder, parameters);
  return [movement]() -> std::map<std::string, double> {
    const auto report = movement->report();
    if (!movement->has_codes()) return {{"weight_distance", report.weight_distance}};
    return {{"flipped_share", report.flipped_share},
            {"weight_distance", report.weight_distance},
            {"scale_distance", report.scale_distance}};
  };
}

}  // namespace

TrainResult run_train_job(TrainJob job, bool force) {
  std::optional<FolderLock> lock;
  if (is_folder(job.output)) lock.emplace(job.output);
  check_train_output(job, force);
  check_texts(job);
  prepare_train_output(job, force);
  choose_threads(job);
  const torch::Device device = choose_device(job);
  if (job.quantizes() && !device.is_cpu()) qat::check_device(*job.qat(), job.device);
  const torch::ScalarType compute = choose_compute(job);
  TrainStart start = open_train_start(job);
  check_ending(job, start.spec, *start.tokenizer);
  const int64_t length = train::choose_sequence_length(job.data, start.spec.context_length);
  TrainData data = open_train_data(job, text_encoder(job, *start.tokenizer), length, job.output / "tokens");
  train::Sampler sampler(std::move(data.train), length, static_cast<uint64_t>(job.seed), job.data.isolate_documents);
  const train::ValidationSet validation(std::move(data.valid), length, job.validate.windows,
                                        job.data.isolate_documents);
  const train::Plan plan =
      train::make_plan(job.schedule, length, sampler.num_windows(), auto_micro_tokens(job, start.spec));
  resolve_schedule(job, plan);

  planned_formats(job, start.spec);  // tells which linear a format does not fit before weights are read
  if (job.quantizes()) job.qat()->linears.warn_unmatched(start.spec);
  check_progress(job, plan, force);
  const bool makes_start = job.quantizes() && job.qat()->makes_start();
  if (makes_start) {
    const ptq::CalibrationTokens tokens = first_windows(job, sampler);
    claim_train_output(job, force, lock);  // what takes long belongs to this job from its first minute
    write_text(job.output / "job.yaml", to_yaml(write_config(job)));
    make_start(job, tokens, start);
  }
  model::Decoder decoder(start.spec, start.source,
                         job.quantizes() ? qat::linear_factory(*job.qat()) : model::make_float_linear);
  if (start.quantized != nullptr) qat::take_scales(*start.quantized, decoder);
  decoder.to(device);
  decoder.compute = compute;
  decoder.round_small_tensors = true;
  load_earlier_run(job, start.config, decoder);
  qat::warn_about_clamped_scales(decoder);
  auto parameters = train::trained_parameters(decoder, job.train);
  TrainResult result;
  result.median_scale = qat::median_scale(decoder);
  qat::resolve_rates(job.optimizer, {.median_scale = result.median_scale,
                                     .is_random = job.model.is_random(),
                                     .is_calibrated = start.quantized != nullptr,
                                     .hidden_size = start.spec.hidden_size,
                                     .batch_tokens = plan.batch_tokens()});
  if (job.quantizes()) qat::set_row_factors(parameters, decoder, result.median_scale);
  const auto teachers = distill::make_teachers(job.objective, {start.spec, start.self, *start.tokenizer},
                                               job.teacher.value_or({}), job.quantizes(), device, compute);
  const auto objective = distill::distill_objective(job.objective, start.spec, teachers.teacher, teachers.baseline);
  if (!makes_start) claim_train_output(job, force, lock);
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

}  // namespace crumb::jobs
