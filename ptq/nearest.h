// Rounding to nearest with scales chosen by what the inputs weigh: the method of `rtn` with importance: activations,
// and the start of others.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <vector>

#include "quant/quantized_tensor.h"

namespace crumb::ptq {

class BlockMethod;

/// What errors of a scale search weigh, of the mean squares of inputs: a share of their mean is added, so that inputs
/// the text never moves count for a little.
std::vector<float> input_importance(const std::vector<float>& mean_squares);

/// w [rows, cols] rounded to nearest; the error of the scale search is weighted by the input_importance() of `energy`
/// [cols], the diagonal of the inputs' Gram matrix.
quant::QuantizedTensor weighted_nearest(const torch::Tensor& w, const torch::Tensor& energy,
                                        const quant::QuantFormat& format, quant::ScaleInit init);

/// That, of every linear.
std::shared_ptr<BlockMethod> make_weighted_nearest(quant::ScaleInit init, double token_cap = 0);

}  // namespace crumb::ptq
