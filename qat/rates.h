// Learning rates of quantized linears. A weight matters by the code it has, so its rate is measured in its scale.
#pragma once

#include <cstdint>
#include <vector>

#include "model/decoder.h"
#include "train/optimizer.h"

namespace crumb::qat {

/// Median of the scales of all quantized rows; 0 without any.
double median_scale(const model::Decoder& decoder);

/// Fills in the rates that are auto. lr: 0.6 % of the median scale (measured on two models: docs/results.md); where
/// nothing is quantized, 1e-3 * sqrt(512 / hidden_size) from random values and a twentieth of it from others.
void resolve_rates(train::OptimizerOptions& optimizer, double median_scale, bool is_random, int64_t hidden_size);

/// Larger scales take larger steps: quantized rows move in proportion to their scale, the median row by the learning
/// rate.
void set_row_factors(std::vector<train::TrainedParameter>& parameters, const model::Decoder& decoder,
                     double median_scale);

}  // namespace crumb::qat
