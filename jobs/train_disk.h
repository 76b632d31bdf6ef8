// What a training run takes on disk.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "export/export.h"
#include "jobs/train_job.h"
#include "quant/quantized_tensor.h"

namespace crumb::jobs {

/// Bytes, without headers, logs and tokenizer files.
struct DiskEstimate {
  int64_t checkpoint = 0;  // each: masters and moments in float32, of what is trained
  int64_t kept = 0;        // checkpoints
  int64_t model = 0;       // model/, and the same again in last/
  int64_t start = 0;       // start/, with its masters, where method.init makes it
  int64_t exports = 0;     // export/, of the targets that the job names
  /// At the fullest moment: one checkpoint more while it is written.
  int64_t total() const { return (kept + 1) * checkpoint + 2 * model + start + exports; }
};

/// `formats`: of the linears that are quantized, by hf_name; `plans`: of job.export_targets. UserError when the job's
/// model has no configuration.
DiskEstimate estimate_disk(const TrainJob& job, const arch::DecoderSpec& spec,
                           const std::map<std::string, quant::QuantFormat>& formats,
                           const std::vector<exporting::ExportPlan>& plans);

/// Bytes that this user may still write where `output` is or would be made.
int64_t free_bytes(const Path& output);

/// A warning when less is free than the run will need beside what it holds already.
void warn_about_space(const DiskEstimate& disk, const Path& output);

}  // namespace crumb::jobs
