#include "train/trainer.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <torch/version.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "kernels/cpu_features.h"
#include "train/metrics.h"
#include "train/pace.h"
#include "train/stop_signal.h"

namespace crumb::train {
namespace {

Batch to_device(Batch batch, torch::Device device) {
  batch.ids = batch.ids.to(device);
  batch.targets = batch.targets.to(device);
  if (batch.mask.defined()) batch.mask = batch.mask.to(device);
  if (batch.documents.defined()) batch.documents = batch.documents.to(device);
  return batch;
}

/// Same seed, same weights: on a GPU attention's gradient, among others, is summed in the order in which threads arrive
/// unless Torch is told otherwise; an operation that cannot be repeated is then an error. cuBLAS must be told before
/// its first product, or Torch refuses it.
void require_repeatable(torch::Device device) {
  if (device.is_cpu()) return;
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);  // nothing here reads memory it did not write
}

/// The model is the average of its weights while this lives, where the optimizer keeps one.
class Averages {
 public:
  explicit Averages(Optimizer& optimizer) : optimizer_(optimizer) { optimizer_.swap_averages(); }
  ~Averages() { optimizer_.swap_averages(); }
  Averages(const Averages&) = delete;
  Averages& operator=(const Averages&) = delete;

 private:
  Optimizer& optimizer_;
};

/// Loss and gradient of one step.
struct StepResult {
  double loss = 0;
  std::map<std::string, double> parts;
  double gradient_norm = 0, scale_gradient_norm = 0;
};

class Run {
 public:
  Run(const TrainerParts& parts, const TrainerOptions& options, const Path& output)
      : parts_(parts),
        options_(options),
        output_(output),
        optimizer_(parts.parameters, options.optimizer, parts.decoder.compute) {
    state_.measure = parts.objective.has_teacher() ? "kl" : "cross_entropy";
  }

  TrainSummary run() {
    const StopSignal stop;
    require_repeatable(options_.device);
    resume();
    MetricsLog log(output_ / "log.jsonl", state_.step > 0 ? state_.step : -1);
    Progress progress(options_.title, options_.plan.tokens, "tokens");
    const Stopwatch clock;
    const int64_t first = state_.step;
    if (state_.step == 0) validate(log, {{"step", 0}, {"tokens", 0}});
    progress.set_start(state_.step * options_.plan.batch_tokens());
    while (!is_over() && !StopSignal::is_set()) {
      one_step(log);
      progress.update(state_.step * options_.plan.batch_tokens(), note_ + valid_note_, seconds_left());
      if (is_due(options_.checkpoint.every)) save(log);
    }
    summary_.is_stopped = StopSignal::is_set();
    if (saved_step_ != state_.step) save(log);  // stopped, or ended before its last step
    if (!summary_.is_stopped && first < state_.step && state_.step < options_.plan.steps)
      log_info("no better one in {} validations (validate.patience): the run ends with step {} of {}",
               state_.stale_validations, state_.step, options_.plan.steps);
    if (!summary_.is_stopped && first < state_.step) progress.finish(note_ + valid_note_);
    finish(clock.seconds(), first);
    return summary_;
  }

  [[noreturn]] void fail_without_memory(const std::string& reason) const {
    run_error("step {}: {}; {}; try a smaller schedule.micro_batch than {}, in another output or with --force",
              state_.step + 1, reason.substr(0, reason.find_first_of(".\n")), last_checkpoint_text(),
              options_.plan.micro_windows);
  }

 private:
  void resume() {
    remove_leftovers(output_);
    remove_leftovers(output_ / "checkpoints");
    const auto folder = newest_whole_checkpoint(output_);
    const TrainState here = environment();
    if (!folder) {
      state_.threads = here.threads, state_.isa = here.isa, state_.torch_version = here.torch_version;
      state_.inputs = options_.inputs;
      return;
    }
    last_checkpoint_ = *folder;
    state_ = load_checkpoint(*folder, optimizer_);
    saved_step_ = state_.step;
    for (const auto& [name, fingerprint] : state_.inputs) {
      const auto found = options_.inputs.find(name);
      CRUMB_CHECK(found != options_.inputs.end() && found->second == fingerprint,
                  "{}: the {} has changed since the run began; choose another output, or --force to start again",
                  output_.string(), name);
    }
    forget_best_of_dropped_steps();
    if (state_.threads != here.threads || state_.isa != here.isa || state_.torch_version != here.torch_version) {
      log_warning(
          "the run began with {} threads, {} and torch {}, and goes on with {}, {} and {}: it will not be bit for bit "
          "the same",
          state_.threads, state_.isa, state_.torch_version, here.threads, here.isa, here.torch_version);
    }
    if (!is_over())
      log_info("going on from {}", folder->string());
    else if (state_.step >= options_.plan.steps)
      log_info("the run in {} has finished its {} steps", output_.string(), state_.step);
    else
      log_info("the run in {} has ended by validate.patience at step {} of {}", output_.string(), state_.step,
               options_.plan.steps);
  }

  bool is_over() const {
    const auto& patience = options_.validate.patience.value;
    return state_.step >= options_.plan.steps || (patience && state_.stale_validations >= *patience);
  }

  /// A kill between a validation and the next checkpoint leaves a model/ of a later step than the state. The same job
  /// makes it again; one that validates at other steps might not, so the next validation writes model/ in any case. So
  /// it does when model/ has gone.
  void forget_best_of_dropped_steps() {
    if (!is_there(output_ / "model")) state_.best_step = -1;
    if (!is_there(output_ / "log.jsonl")) return;
    const Path path = output_ / "log.jsonl";
    for (const auto& object : read_log(path)) {
      const JsonObject line(object, path.string());
      const auto value = line.get<double>(("valid_" + state_.measure).c_str(), std::numeric_limits<double>::infinity());
      if (line.get<int64_t>("step", 0) > state_.step && value < state_.best_value) state_.best_step = -1;
    }
  }

  TrainState environment() const {
    TrainState state;
    state.threads = at::get_num_threads();
    // The library's choice decides the order of its sums, too.
    state.isa = fmt::format("{} ({})", kernels::isa_name(kernels::best_isa()), at::get_cpu_capability());
    state.torch_version = TORCH_VERSION;
    return state;
  }

  std::optional<double> seconds_left() const {
    const int64_t step = state_.step, steps = options_.plan.steps;
    return pace_.seconds_for(steps - step, validations_left(step, steps, options_.validate.every));
  }

  /// Every `every` steps, and after the last.
  bool is_due(int64_t every) const { return state_.step % every == 0 || state_.step == options_.plan.steps; }

  void one_step(MetricsLog& log) {
    const Stopwatch clock;
    const Plan& plan = options_.plan;
    const int64_t step = state_.step + 1;
    const Batch batch = parts_.sampler.batch(state_.step * plan.batch_windows, plan.batch_windows);
    const double supervised = batch.num_supervised();
    Json line{{"step", step}, {"tokens", step * plan.batch_tokens()}};
    if (batch.mask.defined()) line["supervised"] = static_cast<int64_t>(supervised);
    if (supervised > 0) {
      learn(batch, supervised, line);
    } else {
      log_warning("step {}: none of its {} tokens is supervised; the model stays as it is", step, plan.batch_tokens());
      ++state_.idle_steps;
    }
    state_.step = step;
    const double seconds = clock.seconds();
    pace_.add_step(seconds);
    line["tokens_per_second"] = static_cast<double>(plan.batch_tokens()) / seconds;
    if (is_due(options_.validate.every))
      validate(log, std::move(line));
    else
      log.append(line);
  }

  /// Moves the parameters, and writes down how.
  void learn(const Batch& batch, double supervised, Json& line) {
    const LearningRates rates = current_rates();
    const StepResult result = forward_backward(batch, supervised);
    require_finite(result.loss, state_.step + 1, "the loss");
    require_finite(result.gradient_norm + result.scale_gradient_norm, state_.step + 1, "the gradient");
    const double clip = options_.optimizer.grad_clip;
    optimizer_.step(rates, clip > 0 && result.gradient_norm > clip ? clip / result.gradient_norm : 1.0);
    optimizer_.zero_grad();
    line["loss"] = result.loss;
    for (const auto& [name, value] : result.parts) line[name] = value;
    line["lr"] = rates.lr;
    line["scale_lr"] = rates.scale_lr;
    line["gradient_norm"] = result.gradient_norm;
    note_ = fmt::format("loss {:.4f}", result.loss);
  }

  LearningRates current_rates() const {
    const double factor = lr_factor(options_.schedule, state_.step, options_.plan.steps);
    return {.lr = factor * options_.optimizer.lr.value_or(0),
            .scale_lr = factor * options_.optimizer.scale_lr.value_or(0)};
  }

  /// `supervised`: of the whole step, so that a token counts the same in whichever micro-batch it is.
  StepResult forward_backward(const Batch& step, double supervised) {
    const Plan& plan = options_.plan;
    StepResult result;
    for (int64_t done = 0; done < plan.batch_windows; done += plan.micro_windows) {
      const Batch part = step.windows(done, std::min(plan.micro_windows, plan.batch_windows - done));
      if (part.num_supervised() == 0) continue;
      const Batch batch = to_device(part, options_.device);
      const auto output = parts_.decoder.forward(batch.ids, parts_.objective.wanted_layers(), batch.documents);
      const Loss loss = parts_.objective.loss(batch, output, parts_.decoder.head_weight(), supervised);
      result.loss += loss.total.item<double>();
      for (const auto& [name, value] : loss.parts) result.parts[name] += value;
      if (!std::isfinite(result.loss)) return result;
      loss.total.backward();
    }
    result.gradient_norm = optimizer_.gradient_norm();
    result.scale_gradient_norm = optimizer_.scale_gradient_norm();
    return result;
  }

  std::string last_checkpoint_text() const {
    return last_checkpoint_.empty() ? "there is no checkpoint yet"
                                    : "the last good checkpoint is " + last_checkpoint_.string();
  }

  void require_finite(double value, int64_t step, const char* what) const {
    if (std::isfinite(value)) return;
    run_error(
        "step {}: {} is not finite; {}; try a lower optimizer.lr, a longer schedule.warmup, optimizer.grad_clip, or "
        "compute: fp32, in another output or with --force",
        step, what, last_checkpoint_text());
  }

  EvaluationSums validation_sums() {
    const torch::NoGradGuard no_grad;
    EvaluationSums sums;
    const int64_t windows = parts_.validation.num_windows();
    for (int64_t begin = 0; begin < windows; begin += options_.plan.micro_windows) {
      const Batch part = parts_.validation.batch(begin, std::min(options_.plan.micro_windows, windows - begin));
      if (part.num_supervised() == 0) continue;
      const Batch batch = to_device(part, options_.device);
      sums += parts_.objective.evaluate(batch, parts_.decoder.forward(batch.ids, {}, batch.documents),
                                        parts_.decoder.head_weight());
    }
    return sums;
  }

  /// Logs a line with the validation, then keeps the model if it is the best so far: in this order, so that a log
  /// without the step means a model/ without it.
  void validate(MetricsLog& log, Json line) {
    const Stopwatch clock;
    const Averages averages(optimizer_);
    const EvaluationSums sums = validation_sums();
    const double cross_entropy = sums.cross_entropy / sums.tokens, kl = sums.kl / sums.tokens;
    const double value = state_.measure == "kl" ? kl : cross_entropy;
    require_finite(value, state_.step, "the validation");
    line["valid_cross_entropy"] = cross_entropy;
    line["valid_perplexity"] = std::exp(cross_entropy);
    if (state_.measure == "kl") line["valid_kl"] = kl;
    line["valid_top1"] = sums.top1 / sums.tokens;
    if (parts_.movement) {
      for (const auto& [name, number] : parts_.movement()) line[name] = number;
    }
    log.append(line);
    valid_note_ = fmt::format(", validation {} {:.4f}", state_.measure == "kl" ? "KL" : "loss", value);
    if (state_.best_step < 0 || value < state_.best_value) {
      state_.best_value = value;
      state_.best_step = state_.step;
      state_.stale_validations = 0;
      save_model("model");
    } else {
      ++state_.stale_validations;
    }
    pace_.add_validation(clock.seconds());
  }

  void save_model(const char* name) const {
    const torch::NoGradGuard no_grad;
    parts_.save_model(output_ / name);
  }

  void save(MetricsLog& log) {
    require_finite(optimizer_.is_finite() ? 0.0 : NAN, state_.step, "a weight");
    log.sync();  // the log must not end before the checkpoint that goes on from it
    save_checkpoint(output_, state_, optimizer_, options_.checkpoint.keep);
    last_checkpoint_ = output_ / "checkpoints" / fmt::format("step-{:06d}", state_.step);
    saved_step_ = state_.step;
    write_curves();
  }

  void write_curves() const {
    write_text(output_ / "curves.html", curves_page(read_log(output_ / "log.jsonl"), options_.title));
  }

  void finish(double seconds, int64_t first_step) {
    summary_.steps = state_.step;
    summary_.tokens = state_.step * options_.plan.batch_tokens();
    summary_.best_step = state_.best_step;
    summary_.start_value = start_value();
    summary_.best_value = state_.best_value;
    summary_.measure = state_.measure;
    summary_.seconds = seconds;
    summary_.tokens_per_second =
        seconds > 0 ? static_cast<double>((state_.step - first_step) * options_.plan.batch_tokens()) / seconds : 0;
    if (summary_.is_stopped) return;
    write_curves();
    const Averages averages(optimizer_);
    save_model("last");
  }

  /// The first line of the log, also of a run that went on.
  double start_value() const {
    const auto log = read_log(output_ / "log.jsonl");
    return log.empty() ? 0.0
                       : JsonObject(log.front(), "log.jsonl").get<double>(("valid_" + state_.measure).c_str(), 0.0);
  }

  const TrainerParts& parts_;
  const TrainerOptions& options_;
  Path output_, last_checkpoint_;
  Optimizer optimizer_;
  TrainState state_;
  TrainSummary summary_;
  Pace pace_;
  std::string note_, valid_note_;
  int64_t saved_step_ = -1;
};

}  // namespace

TrainSummary run_training(const TrainerParts& parts, const TrainerOptions& options, const Path& output) {
  Run run(parts, options, output);
  try {
    return run.run();
  } catch (const c10::OutOfMemoryError& e) {  // a GPU's
    run.fail_without_memory(e.what_without_backtrace());
  }
}

}  // namespace crumb::train
