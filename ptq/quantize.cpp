#include "ptq/quantize.h"

#include "core/common/error.h"
#include "core/common/log.h"
#include "quant/checkpoint.h"
#include "quant/codes_folder.h"
#include "quant/fingerprint.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

void check_source(const quant::Checkpoint& model) {
  CRUMB_CHECK(model.kind() != quant::CheckpointKind::codes,
              "{}: is quantized already (codes and scales); give the folder it was made from", model.path().string());
}

/// Everything the result depends on.
std::string fingerprint_of(const QuantizeJob& job) {
  QuantizeJob copy = job;
  copy.model = copy.output = Path();
  return fmt::format("crumb {}\n{}model: {} {}\n", CRUMB_VERSION, to_yaml(write_config(copy)),
                     quant::weights_fingerprint(job.model), quant::config_fingerprint(job.model));
}

void warn_about_clamped_scales(const QuantizeReport& report) {
  std::vector<quant::ClampedScales> scales;
  for (const auto& tensor : report.tensors) scales.push_back({tensor.module, tensor.clamped_scales, tensor.scales});
  quant::warn_about_clamped_scales(scales);
}

template <class Method>
QuantizeReport run(const QuantizeJob& job, const Method& method, bool force, ThreadPool& pool) {
  method.check();
  quant::require_model_output(job.output, force, job.model);
  const auto model = quant::open_checkpoint(job.model);
  check_source(*model);
  quant::check_vocabulary(*model);
  quant::warn_about_dequantization(*model);
  method.linears.warn_unmatched(model->spec());
  const auto formats = method.linears.formats_of(model->spec());
  CRUMB_CHECK(!formats.empty(), "method.exclude: leaves no linear of {} to quantize", model->path().string());

  AtomicFolder output(job.output, Overwrite{force}, Unfinished::kept);
  const std::string fingerprint = fingerprint_of(job);
  if (force && output.is_resumed() && !quant::CodesFolder::holds(output.temporary_path(), fingerprint)) {
    log_warning("{}: unfinished work of another job is thrown away", output.temporary_path().string());
    output.clear();
  }
  quant::CodesFolder folder(output.temporary_path(), *model, formats, method.linears.exclude, fingerprint);
  QuantizeReport report;
  try {
    report = walk_rows(*model, folder, *method.make(), pool);
    folder.complete();
  } catch (const RunError& e) {
    run_error("{}; what is done stays in {}, and the same job goes on from it", e.what(),
              output.temporary_path().string());
  } catch (const UserError&) {
    output.discard();
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

QuantizeReport quantize(const QuantizeJob& job, bool force, ThreadPool& pool) {
  return std::visit([&](const auto& method) { return run(job, method, force, pool); }, job.method);
}

}  // namespace crumb::ptq
