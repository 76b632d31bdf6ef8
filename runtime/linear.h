// A linear layer behind a backend: dense floats today, packed codes later.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/common/executor.h"

namespace crumb::runtime {

class Linear {
 public:
  virtual ~Linear() = default;
  /// y[tokens, rows] = x[tokens, cols] * W^T (+ bias), row-major. A token's row does not depend on the other tokens.
  virtual void forward(const float* x, int64_t tokens, float* y, Executor& executor) const = 0;
  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;
};

/// Float weights (kernels/matmul.h). `bias` may be empty.
std::unique_ptr<Linear> make_dense_linear(std::vector<float> weight, int64_t rows, int64_t cols,
                                          std::vector<float> bias);
/// The same over weights somebody else owns (a head tied to the embedding); `weight` must outlive it.
std::unique_ptr<Linear> make_dense_linear_view(const float* weight, int64_t rows, int64_t cols);

}  // namespace crumb::runtime
