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
  std::unique_ptr<quant::Checkpoint> checkpoint;  // null: random values
  arch::DecoderSpec spec;
  nlohmann::json config;  // of the folder to be written
  std::function<void(const Path&)> write_companions;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  model::TensorSource source;  // first values
};

/// UserError for a model that is quantized already, where the job quantizes.
void require_trainable(const TrainJob& job, const quant::Checkpoint& checkpoint);

/// UserError: no such model, one that is quantized already, a tokenizer that does not fit.
TrainStart open_train_start(const TrainJob& job);

}  // namespace crumb::jobs
