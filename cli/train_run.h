// A training job from its file to the folder of the run: builds what the job names and joins it.
#pragma once

#include "cli/train_job.h"
#include "train/trainer.h"

namespace crumb::cli {

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

/// Whether the section `train:` names tensors of this role; a tied head goes with the embedding.
bool is_trained(arch::TensorRole role, const train::TrainedParts& parts, bool tied_head);
/// Windows of `length` tokens in one epoch of the job's training text; tokenizes it if that was not done before.
int64_t count_windows(const TrainJob& job, int64_t length);

/// The decoder's parameters that the job trains, each with its kind and the factors of its rows; the others no longer
/// need a gradient.
std::vector<train::TrainedParameter> trained_parameters(model::Decoder& decoder, const train::TrainedParts& parts);

}  // namespace crumb::cli
