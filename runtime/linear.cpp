#include "runtime/linear.h"

#include <utility>

#include "core/common/error.h"
#include "kernels/matmul.h"

namespace crumb::runtime {
namespace {

/// y = x W^T + bias; the weights packed, or somebody else's as they are.
class DenseMatrix {
 public:
  explicit DenseMatrix(DenseWeights from) : bias_(std::move(from.bias)), rows_(from.rows), cols_(from.cols) {
    CRUMB_ASSERT(static_cast<int64_t>(from.weight.size()) == rows_ * cols_);
    CRUMB_ASSERT(bias_.empty() || static_cast<int64_t>(bias_.size()) == rows_);
    packed_.resize(static_cast<size_t>(kernels::packed_size(rows_, cols_)));
    kernels::pack_weights(from.weight.data(), rows_, cols_, packed_.data());
  }
  DenseMatrix(const float* view, int64_t rows, int64_t cols) : view_(view), rows_(rows), cols_(cols) {}

  void multiply(const float* x, int64_t tokens, float* y, Executor& executor) const {
    const float* bias = bias_.empty() ? nullptr : bias_.data();
    const bool packed = view_ == nullptr;
    kernels::matmul({x, cols_, tokens, packed ? packed_.data() : view_, bias, rows_, cols_, y, rows_, packed},
                    executor);
  }

 private:
  std::vector<float> packed_, bias_;
  const float* view_ = nullptr;
  int64_t rows_, cols_;
};

/// Each member stays a matrix of its own: stacked into one they take the same time, to a few hundredths.
class DenseLinears : public LinearGroup {
 public:
  explicit DenseLinears(std::vector<DenseMatrix> members) : members_(std::move(members)) {}

  void forward(const float* x, int64_t tokens, std::span<float* const> outputs, Executor& executor) const override {
    CRUMB_ASSERT(outputs.size() == members_.size());
    for (size_t i = 0; i < members_.size(); ++i) members_[i].multiply(x, tokens, outputs[i], executor);
  }

 private:
  std::vector<DenseMatrix> members_;
};

DenseWeights read_weights(const quant::Checkpoint& checkpoint, const LinearTensors& tensors) {
  const auto& weight = *tensors.weight;
  DenseWeights out{quant::read_all(checkpoint, weight), weight.desc.rows(), weight.desc.cols()};
  if (tensors.bias != nullptr) out.bias = quant::read_all(checkpoint, *tensors.bias);
  return out;
}

}  // namespace

std::unique_ptr<LinearGroup> make_linears(const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members) {
  std::vector<DenseMatrix> matrices;
  for (const auto& member : members) matrices.emplace_back(read_weights(checkpoint, member));
  return std::make_unique<DenseLinears>(std::move(matrices));
}

std::unique_ptr<LinearGroup> make_dense_linears(std::vector<DenseWeights> members) {
  std::vector<DenseMatrix> matrices;
  for (auto& member : members) matrices.emplace_back(std::move(member));
  return std::make_unique<DenseLinears>(std::move(matrices));
}

std::unique_ptr<LinearGroup> make_dense_view(const float* weight, int64_t rows, int64_t cols) {
  std::vector<DenseMatrix> matrices;
  matrices.emplace_back(weight, rows, cols);
  return std::make_unique<DenseLinears>(std::move(matrices));
}

}  // namespace crumb::runtime
