// Fake quantization on any grid, with the gradients of LSQ (Esser et al., arXiv:1902.08153): what training needs to
// know of a grid are its levels.
#pragma once

#include <torch/torch.h>

#include "quant/grid.h"

namespace crumb::qat {

/// y = value of the code next to w, by the scale round_scale(exp(log_scale)).
///
/// weight       [rows, cols]    float32
/// log_scale    [rows, groups]  float32
/// zero_points  [rows, groups]  int32 where the format has them, else undefined; they do not train
///
/// The gradient by w is that by y where w lies at most half a level's distance beyond the outer levels
/// (kernels/seq.h: 1.98 scales), else 0. By ln s it is the sum over the group of (y - w) grad there, and of y grad
/// elsewhere.
torch::Tensor fake_quantize(const torch::Tensor& weight, const torch::Tensor& log_scale,
                            const torch::Tensor& zero_points, const quant::QuantFormat& format);

}  // namespace crumb::qat
