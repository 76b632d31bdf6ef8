#include "runtime/linear.h"

#include <utility>

#include "core/common/error.h"
#include "kernels/matmul.h"

namespace crumb::runtime {
namespace {

class DenseLinear : public Linear {
 public:
  DenseLinear(const std::vector<float>& weight, std::vector<float> bias, const float* view, int64_t rows, int64_t cols)
      : bias_(std::move(bias)), view_(view), rows_(rows), cols_(cols) {
    if (view != nullptr) return;
    packed_.resize(static_cast<size_t>(kernels::packed_size(rows, cols)));
    kernels::pack_weights(weight.data(), rows, cols, packed_.data());
  }

  void forward(const float* x, int64_t tokens, float* y, Executor& executor) const override {
    const float* bias = bias_.empty() ? nullptr : bias_.data();
    const bool packed = view_ == nullptr;
    kernels::matmul({x, cols_, tokens, packed ? packed_.data() : view_, bias, rows_, cols_, y, rows_, packed},
                    executor);
  }

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }

 private:
  std::vector<float> packed_, bias_;
  const float* view_;  // somebody else's weights, or null
  int64_t rows_, cols_;
};

}  // namespace

std::unique_ptr<Linear> make_dense_linear(std::vector<float> weight, int64_t rows, int64_t cols,
                                          std::vector<float> bias) {
  CRUMB_ASSERT(static_cast<int64_t>(weight.size()) == rows * cols);
  CRUMB_ASSERT(bias.empty() || static_cast<int64_t>(bias.size()) == rows);
  return std::make_unique<DenseLinear>(weight, std::move(bias), nullptr, rows, cols);
}

std::unique_ptr<Linear> make_dense_linear_view(const float* weight, int64_t rows, int64_t cols) {
  return std::make_unique<DenseLinear>(std::vector<float>(), std::vector<float>(), weight, rows, cols);
}

}  // namespace crumb::runtime
