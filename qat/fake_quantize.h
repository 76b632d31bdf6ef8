// Fake quantization on any grid, with the gradients of LSQ (Esser et al., arXiv:1902.08153): what training needs to
// know of a grid are its levels.
#pragma once

#include <torch/torch.h>

#include "quant/quantized_tensor.h"

namespace crumb::qat {

/// y = value of the code next to w, by the scale round_scale(exp(log_scale)).
///
/// weight       [rows, cols]    float32
/// log_scale    [rows, groups]  float32
/// zeros        [rows, groups]  zero points (int32) or minima (float32), which the format has, else undefined; they do
///                              not train: zeros_of()
///
/// The gradient by w is that by y where w lies at most half a level's distance beyond the outer levels
/// (kernels/seq.h: 1.98 scales), else 0. By ln s it is the sum over the group of (y - w) grad there, and of
/// (y - minimum) grad elsewhere.
torch::Tensor fake_quantize(const torch::Tensor& weight, const torch::Tensor& log_scale, const torch::Tensor& zeros,
                            const quant::QuantFormat& format);

/// The zero points or minima of `codes`; undefined where their format has none.
torch::Tensor zeros_of(const quant::QuantizedTensor& codes);

}  // namespace crumb::qat
