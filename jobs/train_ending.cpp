#include "jobs/train_ending.h"

#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "eval/report.h"
#include "export/export.h"
#include "jobs/train_disk.h"

namespace crumb::jobs {
namespace {

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

void export_all(TrainResult& result) {
  const TrainJob& job = result.job;
  for (const auto& target : job.export_targets) {
    make_folders(job.output / "export");
    const auto checkpoint = quant::open_checkpoint(job.output / "model");
    result.exports.push_back(export_path(job, target));
    exporting::export_checkpoint(*checkpoint, result.exports.back(), export_options(job, target));
  }
}

}  // namespace

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
    CRUMB_CHECK(is_file(text), "evaluate.text: {} is not a file", text.string());
  if (!job.evaluate.texts.empty())
    eval::resolve_window_size(job.evaluate, {{"the model", spec.context_length}}, "evaluate.");
  warn_about_space(estimate_disk(job, spec, formats, plans), job.output);
}

void export_and_judge(TrainResult& result) {
  const TrainJob& job = result.job;
  export_all(result);
  if (job.evaluate.texts.empty()) return;
  std::vector<Path> models = {job.output / "model"}, reports = {job.output / "report"};
  for (const auto& file : result.exports) {
    models.push_back(file);
    reports.push_back(file.parent_path() / (file.stem().string() + ".report"));
  }
  eval::EvalOptions options = job.evaluate;
  if (!job.model.is_random()) options.baseline = job.model.source();
  options.threads = job.threads.value_or(0);
  result.evaluations = eval::evaluate_all(options, models);
  for (size_t i = 0; i < models.size(); ++i) {
    const auto& evaluation = result.evaluations[i];
    write_text(reports[i].string() + ".json", dump_json(eval::to_json(evaluation), 2) + "\n");
    write_text(reports[i].string() + ".md", eval::to_markdown(evaluation));
  }
}

}  // namespace crumb::jobs
