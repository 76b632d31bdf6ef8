// The training loop. It knows a decoder, an objective and the parameters to move; what is quantized and how a model is
// saved, it is told.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "train/checkpoint.h"
#include "train/objective.h"
#include "train/optimizer.h"
#include "train/options.h"
#include "train/sampler.h"
#include "train/schedule.h"
#include "train/summary.h"

namespace crumb::train {

struct TrainerOptions {
  OptimizerOptions optimizer;  // lr and scale_lr are given
  ScheduleOptions schedule;
  ValidateOptions validate;
  CheckpointOptions checkpoint;
  Plan plan;
  torch::Device device = torch::kCPU;
  std::string title = "training";                  // of progress and curves
  std::map<std::string, std::string> inputs = {};  // TrainState::inputs
};

/// What is joined for a run.
struct TrainerParts {
  model::Decoder& decoder;
  Objective& objective;
  std::vector<TrainedParameter> parameters;
  Sampler& sampler;
  const ValidationSet& validation;
  /// Writes the model as it is now as a folder, atomically, replacing one that exists.
  std::function<void(const Path&)> save_model;
  /// Numbers for the log of how far the model is from its start ("flipped_share", "weight_distance"); may be empty.
  std::function<std::map<std::string, double>()> movement;
};

/// Losses, in gradients and in the log, are means over the supervised tokens of a step, whatever its micro-batches. A
/// step without any is passed over with a warning: it takes its tokens and its place in the schedule, and the model and
/// the optimizer stay.
///
/// Runs in `output`: log.jsonl, curves.html, checkpoints/, model/ (the best by validation), last/. Goes on from the
/// newest whole checkpoint; UserError when options.inputs differ from those it began with. RunError when the loss, the
/// gradient, the validation or a weight is not finite: says the step, the last checkpoint, and what to try.
TrainSummary run_training(const TrainerParts& parts, const TrainerOptions& options, const Path& output);

}  // namespace crumb::train
