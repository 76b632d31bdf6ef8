#include "runtime/linear.h"

#define EIGEN_DONT_PARALLELIZE  // the pool of threads is ours
#include <Eigen/Core>
#include <algorithm>
#include <utility>

#include "core/common/error.h"

namespace crumb::runtime {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Stride = Eigen::OuterStride<>;

constexpr int64_t kLeastWork = 1 << 17;  // multiply-adds for which waking a thread pays

class DenseLinear : public Linear {
 public:
  DenseLinear(std::vector<float> weight, std::vector<float> bias, const float* data, int64_t rows, int64_t cols)
      : weight_(std::move(weight)),
        bias_(std::move(bias)),
        data_(data == nullptr ? weight_.data() : data),
        rows_(rows),
        cols_(cols) {}

  /// Threads share the rows of W: each packs the (smaller) input for itself and its own part of W.
  void forward(const float* x, int64_t tokens, float* y, const ParallelFor& parallel_for) const override {
    const int64_t grain = std::max<int64_t>(16, kLeastWork / std::max<int64_t>(1, cols_ * tokens));
    parallel_for(rows_, grain, [&](int64_t begin, int64_t end) { multiply(x, tokens, y, begin, end); });
  }

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }

 private:
  void multiply(const float* x, int64_t tokens, float* y, int64_t begin, int64_t end) const {
    const Eigen::Map<const RowMajor> input(x, tokens, cols_);
    const Eigen::Map<const RowMajor> weight(data_ + begin * cols_, end - begin, cols_);
    Eigen::Map<RowMajor, 0, Stride> output(y + begin, tokens, end - begin, Stride(rows_));
    output.noalias() = input * weight.transpose();
    if (bias_.empty()) return;
    output.rowwise() += Eigen::Map<const Eigen::RowVectorXf>(bias_.data() + begin, end - begin);
  }

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
