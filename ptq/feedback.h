// Rounding with error feedback: GPTQ (Frantar et al., arXiv:2210.17323) in the form of LDLQ (Chee et al.,
// arXiv:2307.13304), which they prove to be the same. No Torch here.
//
// For a row w with inputs of Gram matrix H the loss of rounding it to q is e H e^T, e = w - q. With H = R R^T, R upper
// triangular,
//
//   e H e^T = sum_i R_ii^2 (e_i + sum_{j<i} e_j R_ji / R_ii)^2,
//
// so column after column is rounded from the target t_i = w_i + sum_{j<i} e_j R_ji / R_ii. One Cholesky factorization
// of H (its columns in reverse), where the usual form inverts H and factorizes the inverse.
//
// Pruning is rounding to 0: it adds R_ii^2 t_i^2 to the loss, which is SparseGPT's w^2 / [H^-1]_ii (arXiv:2301.00774)
// of the columns that are left. With FeedbackOptions::sparsity the least of these go, block of columns by block when
// its turn comes, and all that follow make up for pruning and rounding together.
#pragma once

#include <cstdint>
#include <vector>

#include "core/common/executor.h"
#include "ptq/pruning.h"
#include "quant/quantized_tensor.h"

namespace crumb::ptq {

struct FeedbackOptions {
  double damping = 0.01;      // added to the diagonal, as a share of its mean
  bool act_order = true;      // columns in order of falling diagonal, else as they stand
  bool static_scales = true;  // all scales from the weights as they are; else those of a group from the targets when
                              // its first column comes (needs act_order = false)
  quant::ScaleInit init = quant::ScaleInit::mse;
  Sparsity sparsity = {};  // chosen on the way, for formats with a mask (needs static_scales). The neighbours of a
                           // pattern stay together in the order of columns
};

/// What all linears with the same input share.
class FeedbackFactor {
 public:
  /// gram [n, n] row-major, symmetric: the mean of x x^T over tokens. Columns that no token ever moves (a zero on the
  /// diagonal) get no feedback. Where rounding makes the damped matrix indefinite, more damping is tried, ten times as
  /// much each time.
  FeedbackFactor(const float* gram, int64_t n, const FeedbackOptions& options);

  int64_t size() const { return n_; }
  const std::vector<int64_t>& order() const { return order_; }  // the column that comes i-th
  /// R_ji / R_ii, j < i, both in that order, row-major [n, n]; the rest is 0.
  const float* coefficients() const { return coefficients_.data(); }
  /// R_ii^2, i as in order(); 0 for columns that no token moves.
  const std::vector<float>& pivots() const { return pivots_; }
  /// Diagonal of the damped matrix, by column: what errors of a scale search weigh.
  const std::vector<float>& importance() const { return importance_; }
  /// b [rows, n] times the inverse of the damped matrix, columns as they stand; 0 for columns that no token moves.
  std::vector<float> solve(const float* b, int64_t rows, Executor& executor) const;
  double damping() const { return damping_; }  // the share that was used
  int64_t dead_columns() const { return dead_columns_; }

 private:
  bool factorize(const float* gram, double share);

  int64_t n_;
  std::vector<int64_t> order_;
  std::vector<float> coefficients_, pivots_, importance_;
  double damping_ = 0;
  int64_t dead_columns_ = 0;
};

struct FeedbackResult {
  quant::QuantizedTensor codes;
  std::vector<float> targets;  // [rows, cols]: what was rounded to the codes; 0 for pruned weights
};

/// w [rows, n]. The result does not depend on the number of threads. `mask` [rows, n]: the weights to prune, for a
/// format with a mask where options.sparsity does not choose them.
FeedbackResult round_with_feedback(const float* w, int64_t rows, const FeedbackFactor& factor,
                                   const quant::QuantFormat& format, const FeedbackOptions& options, Executor& executor,
                                   const std::vector<uint8_t>& mask = {});

}  // namespace crumb::ptq
