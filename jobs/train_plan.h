// What a training job would do, from config.json alone: whatever else is missing is told as unknown.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "export/export.h"
#include "jobs/train_disk.h"
#include "jobs/train_job.h"
#include "jobs/train_memory.h"
#include "train/schedule.h"

namespace crumb::jobs {

struct DryRun {
  std::string architecture;
  int64_t parameters = 0, trained = 0, quantized = 0;
  std::optional<int64_t> source_bytes;       // of the weights' files
  std::optional<int64_t> available_windows;  // of the text
  std::optional<train::Plan> plan;
  std::optional<int64_t> calibration_tokens;  // of method.init: gptq or blockwise
  std::optional<MemoryEstimate> memory;
  std::optional<double> seconds;  // with these:
  int64_t threads = 0;
  std::string compute;  // type of the matrix products
  DiskEstimate disk;
  std::optional<int64_t> free_bytes;  // where the output is or would be made
  std::vector<exporting::ExportPlan> exports;
  std::vector<std::string> unknown;  // "what: why", one a missing thing
};

/// UserError for mistakes of the job, as the run would end with them; nothing is written but a token file in the cache.
DryRun plan_train_job(TrainJob job, bool force);

}  // namespace crumb::jobs
