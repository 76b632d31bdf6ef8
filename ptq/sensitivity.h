// What each format a linear may get would cost the model, measured on the float model before anything is quantized.
//
// Weights q in place of w change the output y of a linear by (q - w) x. With g = d loss / d y of the model's own
// predictions (labels drawn from its softmax: the true Fisher information, of which the mean of g g^T is the block of
// y), KL(model || changed) is 1/2 E[(g^T (q - w) x)^2] to second order. Errors of different rows are as good as
// independent, which leaves
//
//   1/2 sum over rows r of E[g_r^2 ((q - w)_r x)^2],   g_r^2 = (share of row r) * |g|^2:
//
// a Gram matrix of inputs weighted by |g|^2 of their token, one for each linear. The weights of tokens matter on real
// models: massive activations (the first token of a text) dominate an unweighted Gram matrix, but next to nothing
// depends on the outputs there. Labels that were drawn make gradients of different positions uncorrelated, so one
// backward pass a window serves all of its tokens; those of the text would not.
//
// What this leaves out: that errors of several linears add up (they are measured one by one) and terms beyond the
// second order, so that the sum is a ranking and not a forecast where it is not small.
#pragma once

#include <string>
#include <vector>

#include "core/common/thread_pool.h"
#include "ptq/budget.h"
#include "ptq/calibration.h"
#include "quant/checkpoint.h"

namespace crumb::ptq {

class ActivationMemory;

/// [linear][format]: predicted KL in nats a token (`sensitivity` "fisher"), or the error's share of the output's energy
/// times the number of weights ("error"), of weights rounded to nearest with scales weighted by the inputs. "fisher"
/// holds the whole model in float32 once, after that both go block by block. UserError naming the linear for inputs or
/// gradients that are not finite.
std::vector<std::vector<double>> measure_losses(const quant::Checkpoint& model,
                                                const std::vector<BudgetLinear>& linears,
                                                const CalibrationTokens& calibration, const std::string& sensitivity,
                                                ActivationMemory& memory, ThreadPool& pool);

}  // namespace crumb::ptq
