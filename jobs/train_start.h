// The model that a training run starts from.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/tokenizer/tokenizer.h"
#include "jobs/train_job.h"
#include "model/decoder.h"
#include "ptq/calibration.h"
#include "quant/checkpoint.h"
#include "train/sampler.h"

namespace crumb::jobs {

struct TrainStart {
  std::unique_ptr<quant::Checkpoint> model;      // of the job; null: random values
  std::unique_ptr<quant::Checkpoint> rotated;    // that model as the job or method.init rotates it; null: they do not
  std::unique_ptr<quant::Checkpoint> quantized;  // what training begins with; null: the model is rounded
  const quant::Checkpoint& float_model() const { return rotated != nullptr ? *rotated : *model; }
  /// What the first values are of, and the shape of what is written; not of random values.
  const quant::Checkpoint& checkpoint() const { return quantized != nullptr ? *quantized : float_model(); }
  /// The float model in the coordinates of the student: who teaches itself does so by its values.
  model::TensorSource self;

  arch::DecoderSpec spec;
  nlohmann::json config;  // of the folder to be written
  std::function<void(const Path&)> write_companions;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  model::TensorSource source;  // first values
};

/// UserError for a model that is quantized already, where the job quantizes.
void require_trainable(const TrainJob& job, const quant::Checkpoint& checkpoint);

/// Formats of a job (planned_formats) as a run has them that begins with the folder of method.init: what is pruned
/// there stays so.
void keep_masks(const quant::Checkpoint& start, std::map<std::string, quant::QuantFormat>& formats);

/// Of the folder of method.init: UserError unless it was made of a model like `model`, in the formats of the job.
void check_quantized_start(const TrainJob& job, const quant::Checkpoint& start, const arch::DecoderSpec& model);

/// UserError: no such model, one that is quantized already, a tokenizer that does not fit, a folder of method.init that
/// was not made of this model or in other formats than the job's. Where the run makes that folder itself, `quantized`
/// is left to make_start(), and everything else is as it will be.
TrainStart open_train_start(const TrainJob& job);

/// Tokens that method.init: gptq or blockwise looks at, of `there` in windows of `length`. UserError for more than that
/// asked for.
int64_t calibration_tokens(const TrainJob& job, int64_t there, int64_t length);

/// Those tokens: the first windows that the run trains on.
ptq::CalibrationTokens first_windows(const TrainJob& job, train::Sampler& sampler);

/// method.init: gptq or blockwise: quantizes the model to OUTPUT/start by them, unless it is there already. Killed, it
/// goes on where it was.
void make_start(const TrainJob& job, const ptq::CalibrationTokens& tokens, TrainStart& start);

}  // namespace crumb::jobs
