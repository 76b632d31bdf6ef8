#include "runtime/linear.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/common/error.h"
#include "kernels/matmul.h"
#include "quant/activations.h"

namespace crumb::runtime {
namespace {

/// The weights packed, in bfloat16 where that is what they are, or somebody else's as they are.
class DenseLinear : public LinearGroup {
 public:
  DenseLinear(DenseWeights from, WeightPool* pool) : bias_(std::move(from.bias)), rows_(from.rows), cols_(from.cols) {
    CRUMB_ASSERT(static_cast<int64_t>(from.weight.size()) == rows_ * cols_);
    CRUMB_ASSERT(bias_.empty() || static_cast<int64_t>(bias_.size()) == rows_);
    const auto size = static_cast<size_t>(kernels::packed_size(rows_, cols_));
    if (are_bf16(from.weight)) {
      std::vector<kernels::Bf16> packed(size);
      kernels::pack_weights_bf16(from.weight.data(), rows_, cols_, packed.data());
      packed_bf16_ = hold_in(pool, std::move(packed));
    } else {
      std::vector<float> packed(size);
      kernels::pack_weights(from.weight.data(), rows_, cols_, packed.data());
      packed_ = hold_in(pool, std::move(packed));
    }
  }
  DenseLinear(const float* view, int64_t rows, int64_t cols) : view_(view), rows_(rows), cols_(cols) {}

  void forward(const float* x, int64_t tokens, std::span<float* const> outputs, Executor& executor) const override {
    CRUMB_ASSERT(outputs.size() == 1);
    const float* bias = bias_.empty() ? nullptr : bias_.data();
    const float* weights = packed_ != nullptr ? packed_->data() : view_;
    kernels::MatmulArguments product{x,     cols_, tokens,     weights, bias,
                                     rows_, cols_, outputs[0], rows_,   view_ == nullptr};
    if (packed_bf16_ != nullptr) product.w_bf16 = packed_bf16_->data();
    kernels::matmul(product, executor);
  }

  /// What a view shows is somebody else's.
  WeightBytes weight_bytes() const override {
    const int64_t held = (packed_ != nullptr ? bytes_of(*packed_) : 0) +
                         (packed_bf16_ != nullptr ? bytes_of(*packed_bf16_) : 0) + bytes_of(bias_);
    return {held, view_ == nullptr ? held : static_cast<int64_t>(sizeof(float)) * rows_ * cols_};
  }

 private:
  std::shared_ptr<const std::vector<float>> packed_;  // one of the three
  std::shared_ptr<const std::vector<kernels::Bf16>> packed_bf16_;
  const float* view_ = nullptr;
  std::vector<float> bias_;
  int64_t rows_, cols_;
};

/// Members that share nothing but their input.
class JoinedLinears : public LinearGroup {
 public:
  explicit JoinedLinears(std::vector<std::unique_ptr<LinearGroup>> members) : members_(std::move(members)) {}

  void forward(const float* x, int64_t tokens, std::span<float* const> outputs, Executor& executor) const override {
    CRUMB_ASSERT(outputs.size() == members_.size());
    for (size_t i = 0; i < members_.size(); ++i) members_[i]->forward(x, tokens, outputs.subspan(i, 1), executor);
  }
  WeightBytes weight_bytes() const override {
    WeightBytes bytes;
    for (const auto& member : members_) bytes += member->weight_bytes();
    return bytes;
  }

 private:
  std::vector<std::unique_ptr<LinearGroup>> members_;
};

/// Linears that read rounded activations.
class RoundedInputs : public LinearGroup {
 public:
  RoundedInputs(std::unique_ptr<LinearGroup> linears, const quant::ActivationFormat& format, int64_t cols)
      : linears_(std::move(linears)), rounder_(format), cols_(cols) {}

  void forward(const float* x, int64_t tokens, std::span<float* const> outputs, Executor& executor) const override {
    constexpr int64_t kTokens = 4;  // a thread takes
    std::vector<float> rounded(static_cast<size_t>(tokens * cols_));
    executor.run(tokens, kTokens, [&](int64_t begin, int64_t end, int) {
      rounder_.round(x + begin * cols_, end - begin, cols_, rounded.data() + begin * cols_);
    });
    linears_->forward(rounded.data(), tokens, outputs, executor);
  }
  WeightBytes weight_bytes() const override { return linears_->weight_bytes(); }

 private:
  std::unique_ptr<LinearGroup> linears_;
  quant::ActivationRounder rounder_;
  int64_t cols_;
};

DenseWeights read_weights(const quant::Checkpoint& checkpoint, const LinearTensors& tensors) {
  const auto& weight = *tensors.weight;
  DenseWeights out{quant::read_all(checkpoint, weight), weight.desc.rows(), weight.desc.cols()};
  if (tensors.bias != nullptr) out.bias = quant::read_all(checkpoint, *tensors.bias);
  return out;
}

/// Each member by `make`.
template <class Make>
std::unique_ptr<LinearGroup> join(std::span<const LinearTensors> members, const Make& make) {
  std::vector<std::unique_ptr<LinearGroup>> alone;
  for (size_t i = 0; i < members.size(); ++i) alone.push_back(make(members.subspan(i, 1)));
  return std::make_unique<JoinedLinears>(std::move(alone));
}

// Dense members are not stacked into one matrix: that takes the same time, to a few hundredths.
std::unique_ptr<LinearGroup> make_products(const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members,
                                           const LinearMaker& maker, WeightPool* pool) {
  if (auto group = maker ? maker(checkpoint, members) : nullptr) return group;
  if (members.size() == 1) return make_dense_linear(read_weights(checkpoint, members.front()), pool);
  return join(members, [&](auto one) { return make_products(checkpoint, one, maker, pool); });
}

}  // namespace

bool are_bf16(std::span<const float> weights) {
  return std::ranges::all_of(weights, [](float w) { return (std::bit_cast<uint32_t>(w) & 0xFFFF) == 0; });
}

std::unique_ptr<LinearGroup> make_dense_linear(DenseWeights weights, WeightPool* pool) {
  return std::make_unique<DenseLinear>(std::move(weights), pool);
}

std::unique_ptr<LinearGroup> make_dense_view(const float* weight, int64_t rows, int64_t cols) {
  return std::make_unique<DenseLinear>(weight, rows, cols);
}

std::unique_ptr<LinearGroup> make_linears(const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members,
                                          const LinearMaker& maker, WeightPool* pool) {
  const auto rounds = [](const LinearTensors& member) { return member.weight->format.has_value(); };
  const auto activations = quant::activations_of(checkpoint);
  if (!activations || std::ranges::none_of(members, rounds)) return make_products(checkpoint, members, maker, pool);
  if (!std::ranges::all_of(members, rounds))
    return join(members, [&](auto one) { return make_linears(checkpoint, one, maker, pool); });
  return std::make_unique<RoundedInputs>(make_products(checkpoint, members, maker, pool), *activations,
                                         members.front().weight->desc.cols());
}

}  // namespace crumb::runtime
