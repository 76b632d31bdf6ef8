#include "ptq/quantize.h"

#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/log.h"
#include "ptq/block_walk.h"
#include "quant/checkpoint.h"
#include "quant/codes_folder.h"
#include "quant/fingerprint.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

/// The model a job begins with.
class Source {
 public:
  /// UserError if it cannot be quantized.
  explicit Source(const QuantizeJob& job) : stored_(quant::open_checkpoint(job.model)) {
    CRUMB_CHECK(stored_->kind() != quant::CheckpointKind::codes,
                "{}: is quantized already (codes and scales); give the folder it was made from", job.model.string());
    quant::check_vocabulary(*stored_);
    quant::warn_about_dequantization(*stored_);
    if (job.rotation.rotates()) rotated_ = rotate(*stored_, job.rotation);
  }
  const quant::Checkpoint& stored() const { return *stored_; }
  /// What is quantized.
  const quant::Checkpoint& model() const { return rotated_ ? *rotated_ : *stored_; }

 private:
  std::unique_ptr<quant::Checkpoint> stored_, rotated_;
};

quant::Masters masters_of(const QuantizeJob& job) {
  return job.masters ? quant::Masters::kept : quant::Masters::left_out;
}

/// Everything the result depends on, but for the number of threads; `calibration`: null for methods that look at none.
std::string fingerprint_of(const QuantizeJob& job, const CalibrationTokens* calibration) {
  QuantizeJob copy = job;
  copy.model = copy.output = Path();
  copy.calibration.memory = {};
  copy.calibration.text.clear();  // its tokens count, wherever it lies
  std::string times;              // the fingerprint is of a sample of the bytes: an edit in place would be missed
  for (const Path& file : quant::weight_files(job.model)) {
    std::error_code error;
    times += fmt::format(" {}", std::filesystem::last_write_time(file, error).time_since_epoch().count());
  }
  std::string tokens;
  if (calibration != nullptr)
    tokens = fmt::format("{:016x}", hash_bytes(static_cast<uint64_t>(calibration->length),
                                               {reinterpret_cast<const char*>(calibration->ids.data()),
                                                calibration->ids.size() * sizeof(calibration->ids[0])}));
  return fmt::format("crumb {}\n{}model: {} {}{}\ntokens: {}\n", CRUMB_VERSION, to_yaml(write_config(copy)),
                     quant::weights_fingerprint(job.model), quant::config_fingerprint(job.model), times, tokens);
}

void warn_about_clamped_scales(const QuantizeReport& report) {
  std::vector<quant::ClampedScales> scales;
  for (const auto& tensor : report.tensors) scales.push_back({tensor.module, tensor.clamped_scales, tensor.scales});
  quant::warn_about_clamped_scales(scales);
}

bool looks_at_activations(const Method& method) { return std::holds_alternative<std::shared_ptr<BlockMethod>>(method); }

QuantizeReport walk(const QuantizeJob& job, const quant::Checkpoint& model, quant::CodesFolder& folder,
                    const Method& method, const CalibrationTokens* calibration, ThreadPool& pool) {
  if (calibration == nullptr)
    return walk_rows(model, folder, *std::get<std::unique_ptr<RowMethod>>(method), job.pruning, pool);
  const double memory =
      job.calibration.memory.is_word() ? std::numeric_limits<double>::infinity() : *job.calibration.memory.value * 1e9;
  ActivationMemory activations(AtomicFolder::partial_path(job.output), memory);
  return walk_blocks(model, folder, *std::get<std::shared_ptr<BlockMethod>>(method), *calibration, job.pruning,
                     job.activations.format(), activations, pool);
}

/// UserError for what the method cannot prune.
template <class MethodOptions>
void check_pruning(const PruningOptions& pruning, const MethodOptions& method) {
  pruning.check(method.linears, quant::scale_init_from_name(method.init));
  if (pruning.method != "none" && !pruning.prunes())
    log_warning("pruning.sparsity: is 0, so nothing is pruned, whatever pruning.method says");
  if (!pruning.looks_at_activations()) return;
  const Method made = method.make();
  CRUMB_CHECK(looks_at_activations(made),
              "pruning.method: {} looks at activations, method {} at weights alone; use magnitude, or a method with a "
              "calibration text{}",
              pruning.method, method.kName,
              std::is_same_v<MethodOptions, RtnMethod> ? " (rtn with method.importance: activations is one)" : "");
  const bool prunes_jointly = std::get<std::shared_ptr<BlockMethod>>(made)->prunes_jointly();
  CRUMB_CHECK(!pruning.is_joint() || prunes_jointly,
              "pruning.method: sparsegpt needs a method that feeds errors on, with scales from the beginning: gptq, or "
              "blockwise with first: gptq, and static_groups: true; others go with wanda");
}

template <class MethodOptions>
void check(const QuantizeJob& job, const MethodOptions& method, bool force) {
  method.check();
  check_pruning(job.pruning, method);
  if constexpr (std::is_same_v<MethodOptions, SmoothQuantMethod>)
    CRUMB_CHECK(job.activations.format(),
                "method: smoothquant makes activations easier to round; say how they are: activations.grid=int or fp8");
  quant::require_model_output(job.output, force, job.model);
}

/// Of the linears that are quantized, by hf_name.
template <class MethodOptions>
std::map<std::string, quant::QuantFormat> formats_for(const PruningOptions& pruning, const MethodOptions& method,
                                                      const quant::Checkpoint& model) {
  method.linears.warn_unmatched(model.spec());
  auto formats = method.linears.formats_of(model.spec());
  CRUMB_CHECK(!formats.empty(), "method.exclude: leaves no linear of {} to quantize", model.path().string());
  for (auto& [name, format] : formats) {
    const auto& desc = model.tensor(name).desc;
    pruning.check_cols(desc.cols(), desc.module_name());
    format.has_mask = pruning.prunes();
  }
  return formats;
}

template <class MethodOptions>
QuantizeReport run(const QuantizeJob& job, const MethodOptions& method, bool force, ThreadPool& pool,
                   const CalibrationTokens* given) {
  check(job, method, force);
  const Source source(job);
  const quant::Checkpoint& model = source.model();
  const auto formats = formats_for(job.pruning, method, model);
  if (const auto head = added_head(source.stored(), model)) log_info("{}", to_text(*head));
  // Everything a user may have got wrong is found before the output is touched.
  const Method made = method.make();
  std::optional<CalibrationTokens> read;
  const CalibrationTokens* calibration = nullptr;
  if (looks_at_activations(made)) {
    calibration = given != nullptr ? given : &read.emplace(read_calibration(job.calibration, model, pool));
  } else if (!job.calibration.text.empty()) {
    log_warning("calibration.text: method {} does not look at it", method.kName);
  }

  require_apart(AtomicFolder::partial_path(job.output), {job.model});
  AtomicFolder output(job.output, Overwrite{force}, Unfinished::kept);
  const std::string fingerprint = fingerprint_of(job, calibration);
  const Path& partial = output.temporary_path();
  if (force && quant::CodesFolder::is_unfinished_work(partial) && !quant::CodesFolder::holds(partial, fingerprint)) {
    log_warning("{}: unfinished work of another job is thrown away", partial.string());
    output.clear();
  }
  QuantizeReport report;
  std::optional<quant::CodesFolder> folder;
  try {
    folder.emplace(output.temporary_path(), model, formats, method.linears.exclude, fingerprint, masters_of(job),
                   job.activations.format());
    report = walk(job, model, *folder, made, calibration, pool);
    folder->complete();
  } catch (const RunError& e) {
    // What is done is of use later, unless it is the model that has changed.
    const bool has_work = folder ? folder->num_finished() > 0 : output.is_resumed();
    if (!has_work || fingerprint_of(job, calibration) != fingerprint) {
      output.discard();
      throw;
    }
    run_error("{}; what is done stays in {}, and the same job goes on from it", e.what(),
              output.temporary_path().string());
  } catch (const UserError&) {
    if (folder) output.discard();  // without it, what lies there is another job's
    throw;
  }
  output.discard();                                                      // its record is gone
  if (force) quant::require_model_output(job.output, force, job.model);  // again: it may have become another folder
  output.commit();
  warn_about_clamped_scales(report);
  return report;
}

}  // namespace

const char* method_name(const QuantizeJob& job) {
  return std::visit([](const auto& method) { return method.kName; }, job.method);
}

QuantizeReport quantize(const QuantizeJob& job, bool force, ThreadPool& pool, const CalibrationTokens* calibration) {
  return std::visit([&](const auto& method) { return run(job, method, force, pool, calibration); }, job.method);
}

QuantizePlan plan_quantize(const QuantizeJob& job, bool force) {
  return std::visit(
      [&](const auto& method) {
        check(job, method, force);
        const Source source(job);
        if (looks_at_activations(method.make())) check_calibration(job.calibration, source.model());
        return plan_of(source.stored(), source.model(), formats_for(job.pruning, method, source.model()),
                       masters_of(job));
      },
      job.method);
}

}  // namespace crumb::ptq
