// Gram matrices of what linears read.
#pragma once

#include <torch/torch.h>

#include <cstdint>

namespace crumb::ptq {

/// The sum of x^T x over batches. Only strips of its upper triangle are multiplied out: for wide inputs little more
/// than half of the work, which is most of what calibration computes.
class GramSum {
 public:
  explicit GramSum(int64_t cols);
  /// x [tokens, cols] float32, on the CPU.
  void add(const torch::Tensor& x);
  /// [cols, cols] float32, symmetric to the last bit: the sum divided by `count`. Nothing may be added after.
  torch::Tensor mean(int64_t count);

 private:
  torch::Tensor sum_;  // above the diagonal, and in the squares on it
  int64_t strip_;      // columns
};

}  // namespace crumb::ptq
