#include "export/export.h"

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/formats/gguf.h"
#include "export/writers.h"
#include "quant/activations.h"

namespace crumb::exporting {
namespace {

bool is_gguf(const std::string& target) { return target.starts_with("gguf-"); }

/// --force must not take away what is being read, nor a folder that is no model.
void check_output(const Path& source, const Path& output, const ExportOptions& options) {
  if (!is_gguf(options.target)) return quant::require_model_output(output, options.force, source);
  if (options.force && is_there(output)) {
    require_apart(output, is_file(source) ? formats::GgufReader(source).files() : std::vector{source});
    CRUMB_CHECK(!is_folder(output), "{} is a folder; {} writes a file", output.string(), options.target);
    CRUMB_CHECK(canonical_path(output).parent_path() != canonical_path(source) || output.extension() == ".gguf",
                "{} belongs to the model that is exported; give another output", output.string());
  }
  require_new_file(output, options.force);
}

std::map<std::string, quant::QuantFormat> quantized_formats(const quant::Checkpoint& checkpoint) {
  std::map<std::string, quant::QuantFormat> formats;
  for (const auto& tensor : checkpoint.tensors())
    if (tensor.format) formats[tensor.desc.hf_name] = *tensor.format;
  return formats;
}

void log_warnings(const ExportPlan& plan, size_t first) {
  for (size_t i = first; i < plan.warnings.size(); ++i) log_warning("{}: {}", plan.target, plan.warnings[i]);
}

/// The warnings that only the weights can tell.
void warn_about_rounding(const ExportJob& job, ExportPlan& plan) {
  std::map<std::string, std::set<std::string>> by_type;
  for (const auto& planned : plan.tensors)
    if (job.rounded.contains(planned.desc.hf_name))
      by_type[std::string(formats::type_name(planned.type))].insert(planned.desc.hf_name);
  for (const auto& [type, names] : by_type)
    plan.warnings.push_back(fmt::format("weights rounded to {} in {} tensor{} (more digits in the source): {}{}", type,
                                        names.size(), names.size() == 1 ? "" : "s", *names.begin(),
                                        names.size() == 1 ? "" : ", ..."));
  for (const auto& planned : plan.tensors) {
    const auto lost = job.lost.find(planned.desc.hf_name);
    if (lost == job.lost.end()) continue;
    plan.warnings.push_back(
        fmt::format("{} of {} rows of {} lose more than a tenth: the 16-bit scales of {} do not reach their values",
                    lost->second, planned.desc.rows(), planned.desc.hf_name, formats::type_name(planned.type)));
  }
}

}  // namespace

void check_vocabulary_exports(const arch::DecoderSpec& spec, const tokenizer::Tokenizer& tokenizer,
                              const std::string& target) {
  if (is_gguf(target)) check_gguf_vocabulary(spec, tokenizer);
}

ExportResult export_checkpoint(const quant::Checkpoint& checkpoint, const Path& output, const ExportOptions& options) {
  quant::warn_about_dequantization(checkpoint, /*takes_codes=*/true);
  quant::check_vocabulary(checkpoint);
  ExportResult result;
  result.plan = plan_export(checkpoint.spec(), quantized_formats(checkpoint), options);
  if (const auto activations = quant::activations_of(checkpoint))
    result.plan.warnings.push_back(fmt::format(
        "no file says that activations are quantized ({}): whoever runs it reads them as floats, or rounds them in its "
        "own way",
        activations->title()));
  check_output(checkpoint.path(), output, options);
  log_warnings(result.plan, 0);
  const size_t told = result.plan.warnings.size();

  ThreadPool pool(options.threads);
  Progress progress("export " + options.target, 2 * result.plan.data_bytes, "bytes");
  ExportJob job{checkpoint, result.plan, output, Overwrite{options.force}, pool, progress};
  if (is_gguf(options.target))
    write_gguf(job);
  else
    write_hf(job);
  progress.finish();

  warn_about_rounding(job, result.plan);
  log_warnings(result.plan, told);
  result.file_bytes = job.file_bytes;
  result.checked_tensors = job.checked_tensors;
  return result;
}

}  // namespace crumb::exporting
