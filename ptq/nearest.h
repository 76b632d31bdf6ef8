// Rounding to nearest with scales chosen by what the inputs weigh: the method of `rtn` with importance: activations,
// and the start of others.
#pragma once

#include <memory>

#include "quant/grid.h"

namespace crumb::ptq {

class BlockMethod;

/// The error of a scale search is weighted by the diagonal of the inputs' Gram matrix.
std::shared_ptr<BlockMethod> make_weighted_nearest(quant::ScaleInit init, double token_cap = 0);

}  // namespace crumb::ptq
