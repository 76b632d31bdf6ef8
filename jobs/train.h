// A training job from its file to the folder of the run: builds what the job names and joins it.
#pragma once

#include <vector>

#include "jobs/train_job.h"
#include "train/summary.h"

namespace crumb::jobs {

struct TrainResult {
  TrainJob job;  // with every auto resolved
  train::TrainSummary summary;
  double median_scale = 0;  // at the start; 0 without quantization
  std::vector<Path> exports;
  std::vector<eval::EvalResult> evaluations;  // of model/, then of the exports
};

/// Runs the job, or goes on with it, in job.output. `force`: removes what an earlier run left there, once everything
/// the job names has been opened. UserError when the output holds something else or the job has changed.
TrainResult run_train_job(TrainJob job, bool force);

}  // namespace crumb::jobs
