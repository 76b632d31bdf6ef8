// Learning rates of quantized linears. A weight matters by the code it has, so its rate is measured in its scale.
#pragma once

#include <cstdint>
#include <vector>

#include "model/decoder.h"
#include "train/optimizer.h"

namespace crumb::qat {

/// Median of the scales of all quantized rows; 0 without any.
double median_scale(const model::Decoder& decoder);

/// What the rates depend on.
struct RateFacts {
  double median_scale = 0;     // 0: nothing is quantized
  bool is_random = false;      // the first values
  bool is_calibrated = false;  // they are a quantized folder's, which large steps would undo
  int64_t hidden_size = 0;
  int64_t batch_tokens = 0;  // of a step
};

/// Fills in the rates that are auto. lr: 0.6 % of the median scale; from a calibrated start 0.06 % where a step has 512
/// tokens (measured: docs/ptq.md), and as the root of a step's tokens from there, as Adam's noise has it (Malladi et
/// al. 2022, arXiv:2205.10287), up to 0.2 %; where nothing is quantized, 1e-3 * sqrt(512 / hidden_size) from random
/// values and a twentieth of it from others. scale_lr: 1e-3, half of it from a calibrated start.
void resolve_rates(train::OptimizerOptions& optimizer, const RateFacts& facts);

/// Larger scales take larger steps: quantized rows move in proportion to their scale, the median row by the learning
/// rate.
void set_row_factors(std::vector<train::TrainedParameter>& parameters, const model::Decoder& decoder,
                     double median_scale);

}  // namespace crumb::qat
