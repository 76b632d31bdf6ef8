#include "ptq/quantize.h"

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/log.h"
#include "core/formats/imatrix.h"
#include "core/text/windows.h"
#include "ptq/block_walk.h"
#include "ptq/sensitivity.h"
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
std::string fingerprint_of(const QuantizeJob& job, const Method& method, const CalibrationTokens* calibration) {
  QuantizeJob copy = job;
  copy.model = copy.output = Path();
  copy.calibration.memory = {};
  if (copy.calibration.imatrix) copy.calibration.imatrix = Path("asked for");  // what is done has to know it
  copy.calibration.text.clear();                                               // its tokens count, wherever it lies
  std::string tokens;
  if (calibration != nullptr)
    tokens = fmt::format("{:016x}", hash_bytes(static_cast<uint64_t>(calibration->length),
                                               {reinterpret_cast<const char*>(calibration->ids.data()),
                                                calibration->ids.size() * sizeof(calibration->ids[0])}));
  const auto* rows = std::get_if<std::unique_ptr<RowMethod>>(&method);
  const auto files = quant::weight_files(job.model);
  return fmt::format("crumb {}\n{}model: {} {} {}\ntokens: {}\n{}\n", CRUMB_VERSION, to_yaml(write_config(copy)),
                     quant::weights_fingerprint(files), quant::config_fingerprint(job.model),
                     quant::weights_times(files), tokens, rows != nullptr ? (*rows)->fingerprint() : "");
}

void warn_about_clamped_scales(const QuantizeReport& report) {
  std::vector<quant::ClampedScales> scales;
  for (const auto& tensor : report.tensors) scales.push_back({tensor.module, tensor.clamped_scales, tensor.scales});
  quant::warn_about_clamped_scales(scales);
}

bool looks_at_activations(const Method& method) { return std::holds_alternative<std::shared_ptr<BlockMethod>>(method); }

ActivationMemory activation_memory(const QuantizeJob& job, const Path& folder) {
  const auto& memory = job.calibration.memory;
  return {folder, memory.is_word() ? std::numeric_limits<double>::infinity() : *memory.value * 1e9};
}

QuantizeReport walk(const QuantizeJob& job, const quant::Checkpoint& model, quant::CodesFolder& folder,
                    const Method& method, const CalibrationTokens* calibration, ThreadPool& pool) {
  if (calibration == nullptr)
    return walk_rows(model, folder, *std::get<std::unique_ptr<RowMethod>>(method), job.pruning, pool);
  ActivationMemory activations = activation_memory(job, AtomicFolder::partial_path(job.output));
  return walk_blocks(model, folder, *std::get<std::shared_ptr<BlockMethod>>(method), *calibration, job.pruning,
                     job.activations.format(), activations, pool,
                     job.calibration.imatrix ? InputSquares::kept : InputSquares::left_out);
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
  job.budget.check();
  CRUMB_CHECK(!job.budget.is_asked() || !job.pruning.prunes(),
              "budget: what pruning costs is not measured when bits are chosen; choose without, and give the overrides "
              "that are printed to a job with pruning");
  MethodOptions checked = method;
  if (job.budget.is_asked()) checked.linears.candidates = budget_candidates(job.budget, method.linears);
  checked.check();
  check_pruning(job.pruning, method);
  if constexpr (std::is_same_v<MethodOptions, SmoothQuantMethod>)
    CRUMB_CHECK(job.activations.format(),
                "method: smoothquant makes activations easier to round; say how they are: activations.grid=int or fp8");
  quant::require_model_output(job.output, force, job.model);
  const auto& imatrix = job.calibration.imatrix;
  if (!imatrix) return;
  CRUMB_CHECK(!job.rotation.rotates(),
              "calibration.imatrix: rotation changes what the linears read; the file would be of no model but the "
              "rotated one");
  constexpr bool kScalesChannels =
      std::is_same_v<MethodOptions, AwqMethod> || std::is_same_v<MethodOptions, SmoothQuantMethod>;
  CRUMB_CHECK(!kScalesChannels, "calibration.imatrix: {} changes what the linears read; write it by another method",
              method.kName);
  if constexpr (std::is_same_v<MethodOptions, GptqMethod>)
    CRUMB_CHECK(!method.gptq.reorder,
                "calibration.imatrix: with method.reorder the inputs have another order than those of the model; leave "
                "out one");
  if constexpr (requires { method.gptq.token_cap; })
    CRUMB_CHECK(method.gptq.token_cap == 0,
                "calibration.imatrix: with method.token_cap the inputs are not counted as they are; leave out one");
  for (const Path& folder : {job.output, AtomicFolder::partial_path(job.output)}) {
    const auto whole = [](const Path& path) {
      return std::filesystem::weakly_canonical(std::filesystem::absolute(path));
    };
    const Path there = whole(*imatrix).lexically_relative(whole(folder));
    CRUMB_CHECK(there.empty() || *there.begin() == "..",
                "calibration.imatrix: {} lies in the output, which appears as a whole; name a place outside",
                imatrix->string());
  }
  require_apart(*imatrix, {job.model});
  require_apart(*imatrix, job.calibration.text);
  require_new_file(*imatrix, force);
}

/// Of made methods: what does not show in their keys.
void check_made(const QuantizeJob& job, const Method& made, const quant::Checkpoint& model,
                const std::map<std::string, quant::QuantFormat>& formats) {
  const auto* rows = std::get_if<std::unique_ptr<RowMethod>>(&made);
  if (rows == nullptr) return;
  CRUMB_CHECK(!job.calibration.imatrix, "calibration.imatrix: method {} does not look at what the linears read",
              method_name(job));
  std::vector<arch::TensorDesc> linears;
  for (const auto& desc : arch::tensor_table(model.spec())) {
    if (formats.contains(desc.hf_name)) linears.push_back(desc);
  }
  (*rows)->check(model, linears);
}

void write_imatrix(const QuantizeJob& job, const quant::Checkpoint& model, const QuantizeReport& report,
                   const CalibrationTokens& calibration, bool force) {
  std::map<std::string, const TensorError*> errors;
  for (const auto& tensor : report.tensors) errors[tensor.module] = &tensor;
  formats::MeanSquares squares;
  for (const auto& desc : arch::tensor_table(model.spec())) {
    const auto found = errors.find(desc.module_name());
    if (desc.role == arch::TensorRole::linear && found != errors.end())
      squares[desc.gguf.name] = found->second->input_squares;
  }
  formats::ImatrixText text{.names = {}, .windows = calibration.windows, .window_tokens = calibration.length};
  for (const Path& path : job.calibration.text) text.names.push_back(path.filename().string());
  formats::write_imatrix(*job.calibration.imatrix, squares, text, Overwrite{force});
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
  check_made(job, made, model, formats);
  std::optional<CalibrationTokens> read;
  const CalibrationTokens* calibration = nullptr;
  if (looks_at_activations(made)) {
    calibration = given != nullptr ? given : &read.emplace(read_calibration(job.calibration, model, pool));
  } else if (!job.calibration.text.empty() && !job.budget.is_asked()) {
    log_warning("calibration.text: method {} does not look at it", method.kName);
  }

  require_apart(AtomicFolder::partial_path(job.output), {job.model});
  AtomicFolder output(job.output, Overwrite{force}, Unfinished::kept);
  const std::string fingerprint = fingerprint_of(job, made, calibration);
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
    if (!has_work || fingerprint_of(job, made, calibration) != fingerprint) {
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
  if (job.calibration.imatrix) write_imatrix(job, model, report, *calibration, force);
  warn_about_clamped_scales(report);
  return report;
}

/// What the budget leaves to choose; `source` of the job.
template <class MethodOptions>
BudgetFrame frame_of(const QuantizeJob& job, const MethodOptions& method, const Source& source,
                     const CalibrationTokens* given) {
  CRUMB_CHECK(given != nullptr || !job.calibration.text.empty(),
              "calibration.text: what budget chooses by is measured on a text; give one, such as "
              "calibration.text=[corpus.txt]");
  const auto formats = method.linears.formats_of(source.model().spec());
  const auto plan = plan_of(source.stored(), source.model(), formats, quant::Masters::left_out);
  return budget_frame(job.budget, method.linears, source.model().spec(), plan.kept_bytes);
}

/// Those windows that a budget is chosen by, spread over all.
CalibrationTokens some_windows(const CalibrationTokens& all, int64_t tokens) {
  CalibrationTokens out{
      .windows = std::clamp<int64_t>(tokens / all.length, 1, all.windows), .length = all.length, .ids = {}};
  for (const int64_t window : text::spread_evenly(all.windows, out.windows, text::Spread::parts))
    out.ids.insert(out.ids.end(), all.ids.begin() + window * all.length, all.ids.begin() + (window + 1) * all.length);
  return out;
}

/// Chooses the formats, which become overrides, and runs the job with them: it is recognised by them when it is gone on
/// with, so a run that measures anything else does not mix with what is there.
template <class MethodOptions>
QuantizeReport run_with_budget(const QuantizeJob& job, const MethodOptions& method, bool force, ThreadPool& pool,
                               const CalibrationTokens* given) {
  check(job, method, force);
  std::optional<CalibrationTokens> read;
  BudgetReport budget;
  {
    const Source source(job);
    const BudgetFrame frame = frame_of(job, method, source, given);
    check_made(job, method.make(), source.model(), method.linears.formats_of(source.model().spec()));
    if (given == nullptr) given = &read.emplace(read_calibration(job.calibration, source.model(), pool));
    ActivationMemory memory = activation_memory(job, temporary_folder());
    const auto losses = measure_losses(source.model(), frame.linears, some_windows(*given, job.budget.tokens),
                                       job.budget.sensitivity, memory, pool);
    budget = choose_for_budget(frame, losses, job.budget.sensitivity);
  }
  QuantizeJob chosen = job;
  MethodOptions with = method;
  for (auto& entry : budget.overrides(method.linears)) with.linears.overrides.push_back(std::move(entry));
  chosen.method = with;
  QuantizeReport report = run(chosen, with, force, pool, given);
  report.budget = std::move(budget);
  return report;
}

}  // namespace

const char* method_name(const QuantizeJob& job) {
  return std::visit([](const auto& method) { return method.kName; }, job.method);
}

QuantizeReport quantize(const QuantizeJob& job, bool force, ThreadPool& pool, const CalibrationTokens* calibration) {
  return std::visit(
      [&](const auto& method) {
        return job.budget.is_asked() ? run_with_budget(job, method, force, pool, calibration)
                                     : run(job, method, force, pool, calibration);
      },
      job.method);
}

QuantizePlan plan_quantize(const QuantizeJob& job, bool force) {
  return std::visit(
      [&](const auto& method) {
        check(job, method, force);
        const Source source(job);
        std::optional<BudgetFrame> budget;
        if (job.budget.is_asked()) budget = frame_of(job, method, source, nullptr);
        const Method made = method.make();
        const auto formats = formats_for(job.pruning, method, source.model());
        check_made(job, made, source.model(), formats);
        if (budget || looks_at_activations(made)) check_calibration(job.calibration, source.model());
        QuantizePlan plan = plan_of(source.stored(), source.model(), formats, masters_of(job));
        plan.budget = std::move(budget);
        return plan;
      },
      job.method);
}

}  // namespace crumb::ptq
