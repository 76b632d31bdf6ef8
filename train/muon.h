// Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): the step of a matrix is the nearest orthogonal matrix
// to its momentum, so that it is as large in every direction of the matrix. Adam makes every entry of the step as
// large, which says nothing after a rotation that has spread what a few channels had over all of them.
#pragma once

#include <torch/torch.h>

namespace crumb::train {

/// U V^T of m = U S V^T, nearly: five Newton-Schulz steps X <- 3.4445 X - 4.7750 X X^T X + 2.0315 (X X^T)^2 X from
/// X = m / |m| take singular values above about 0.002 |m| into 0.68 ... 1.13, and leave smaller ones smaller. m [rows,
/// cols] float32; products in `compute` (float32 or bfloat16); zeros stay zeros.
torch::Tensor orthogonalized(const torch::Tensor& m, torch::ScalarType compute);

/// What the result is multiplied by, so that the root mean square of a step is that usual of Adam and its learning
/// rates serve both: 0.2 sqrt(max(rows, cols)) (Liu et al. 2025, arXiv:2502.16982).
double muon_step_size(int64_t rows, int64_t cols);

}  // namespace crumb::train
