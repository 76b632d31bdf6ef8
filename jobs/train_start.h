// The model that a training run starts from.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/tokenizer/tokenizer.h"
#include "jobs/train_job.h"
#include "model/decoder.h"
#include "quant/checkpoint.h"

namespace crumb::jobs {

struct TrainStart {
  std::unique_ptr<quant::Checkpoint> model;      // of the job; null: random values
  std::unique_ptr<quant::Checkpoint> rotated;    // that model as method.init has rotated it; null: it has not
  std::unique_ptr<quant::Checkpoint> quantized;  // the folder of method.init; null: the model is rounded
  /// What the first values are of, and the shape of what is written; not of random values.
  const quant::Checkpoint& checkpoint() const { return quantized != nullptr ? *quantized : *model; }
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

/// Of the folder of method.init: UserError unless it was made of a model like `model`, in the formats of the job.
void check_quantized_start(const TrainJob& job, const quant::Checkpoint& start, const arch::DecoderSpec& model);

/// UserError: no such model, one that is quantized already, a tokenizer that does not fit, a folder of method.init that
/// was not made of this model or in other formats than the job's.
TrainStart open_train_start(const TrainJob& job);

}  // namespace crumb::jobs
