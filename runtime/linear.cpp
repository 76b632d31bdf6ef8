#include "runtime/linear.h"

#include <utility>

#include "core/common/error.h"
#include "kernels/matmul.h"

namespace crumb::runtime {
namespace {

class DenseLinear : public Linear {
 public:
  DenseLinear(std::vector<float> weight, std::vector<float> bias, const float* data, int64_t rows, int64_t cols)
      : weight_(std::move(weight)),
        bias_(std::move(bias)),
        data_(data == nullptr ? weight_.data() : data),
        rows_(rows),
        cols_(cols) {}

  void forward(const float* x, int64_t tokens, float* y, Executor& executor) const override {
    const float* bias = bias_.empty() ? nullptr : bias_.data();
    kernels::matmul({x, cols_, tokens, data_, bias, rows_, cols_, y, rows_}, executor);
  }

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }

 private:
  std::vector<float> weight_, bias_;
  const float* data_;
  int64_t rows_, cols_;
};

}  // namespace

std::unique_ptr<Linear> make_dense_linear(std::vector<float> weight, int64_t rows, int64_t cols,
                                          std::vector<float> bias) {
  CRUMB_ASSERT(static_cast<int64_t>(weight.size()) == rows * cols);
  CRUMB_ASSERT(bias.empty() || static_cast<int64_t>(bias.size()) == rows);
  return std::make_unique<DenseLinear>(std::move(weight), std::move(bias), nullptr, rows, cols);
}

std::unique_ptr<Linear> make_dense_linear_view(const float* weight, int64_t rows, int64_t cols) {
  return std::make_unique<DenseLinear>(std::vector<float>(), std::vector<float>(), weight, rows, cols);
}

}  // namespace crumb::runtime
