#include "runtime/linear.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "core/common/error.h"
#include "kernels/matmul.h"
#include "kernels/rms_norm.h"
#include "quant/activations.h"
#include "runtime/packed_floats.h"

namespace crumb::runtime {
namespace {

template <class T>
using Shared = std::shared_ptr<const LargeVector<T>>;
using SharedFloats = std::variant<Shared<float>, Shared<kernels::Bf16>, Shared<Half>>;

SharedFloats share(HeldFloats packed, WeightPool* pool) {
  return std::visit([&](auto& values) -> SharedFloats { return hold_in(pool, std::move(values)); }, packed);
}

/// From the cache, or read and remembered for it.
SharedFloats hold_floats(const quant::Checkpoint& checkpoint, const quant::StoredTensor& weight,
                         const WeightStores& stores, Executor& executor) {
  const std::string& name = weight.desc.hf_name;
  WeightCache* const cache = stores.cache.get();
  if (cache != nullptr && cache->is_read()) {
    HeldFloats held = room_for(cache->type_of(name), weight.desc.rows(), weight.desc.cols());
    cache->read(name, {std::visit([](auto& values) { return bytes_in(values); }, held)}, executor);
    return share(std::move(held), stores.pool.get());
  }
  HeldFloats held = read_packed(checkpoint, weight, executor);
  const auto type = type_of(held);
  auto shared = share(std::move(held), stores.pool.get());
  const auto keep = [&](const auto& owner) { cache->keep(name, type, {bytes_in(*owner)}, owner); };
  if (cache != nullptr) std::visit(keep, shared);
  return shared;
}

/// The weights packed, in 16 bits where that is what they are.
class DenseLinear : public LinearGroup {
 public:
  DenseLinear(SharedFloats packed, int64_t rows, int64_t cols, std::vector<float> bias, DenseInputs inputs)
      : packed_(std::move(packed)), bias_(std::move(bias)), rows_(rows), cols_(cols), inputs_(inputs) {
    CRUMB_ASSERT(bias_.empty() || static_cast<int64_t>(bias_.size()) == rows_);
  }

  void forward(const float* x, int64_t tokens, std::span<float* const> outputs, Executor& executor) const override {
    CRUMB_ASSERT(outputs.size() == 1);
    const float* bias = bias_.empty() ? nullptr : bias_.data();
    kernels::MatmulArguments product{x, cols_, tokens, nullptr, bias, rows_, cols_, outputs[0], rows_, true};
    if (const auto* bf16 = std::get_if<Shared<kernels::Bf16>>(&packed_)) {
      product.w_bf16 = (*bf16)->data();
      if (inputs_ == DenseInputs::bf16) return kernels::matmul_of_bf16(product, executor);
    } else if (const auto* f16 = std::get_if<Shared<Half>>(&packed_)) {
      product.w_f16 = (*f16)->data();
    } else {
      product.w = std::get<Shared<float>>(packed_)->data();
    }
    kernels::matmul(product, executor);
  }
  void read_row(int64_t row, float* out) const override {
    std::visit([&](const auto& packed) { kernels::read_packed_row(packed->data(), cols_, row, out); }, packed_);
  }
  WeightBytes weight_bytes() const override {
    const int64_t held = bytes_of(bias_) + std::visit([](const auto& packed) { return bytes_of(*packed); }, packed_);
    return {held, held};
  }

 private:
  SharedFloats packed_;
  std::vector<float> bias_;
  int64_t rows_, cols_;
  DenseInputs inputs_;
};

/// Members that share nothing but their input.
class JoinedLinears : public LinearGroup {
 public:
  explicit JoinedLinears(std::vector<std::unique_ptr<LinearGroup>> members) : members_(std::move(members)) {}

  void forward(const float* x, int64_t tokens, std::span<float* const> outputs, Executor& executor) const override {
    CRUMB_ASSERT(outputs.size() == members_.size());
    for (size_t i = 0; i < members_.size(); ++i) members_[i]->forward(x, tokens, outputs.subspan(i, 1), executor);
  }
  void read_row(int64_t row, float* out) const override { members_.front()->read_row(row, out); }
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
  void read_row(int64_t row, float* out) const override { linears_->read_row(row, out); }
  WeightBytes weight_bytes() const override { return linears_->weight_bytes(); }

 private:
  std::unique_ptr<LinearGroup> linears_;
  quant::ActivationRounder rounder_;
  int64_t cols_;
};

/// Each member by `make`.
template <class Make>
std::unique_ptr<LinearGroup> join(std::span<const LinearTensors> members, const Make& make) {
  std::vector<std::unique_ptr<LinearGroup>> alone;
  for (size_t i = 0; i < members.size(); ++i) alone.push_back(make(members.subspan(i, 1)));
  return std::make_unique<JoinedLinears>(std::move(alone));
}

// Dense members are not stacked into one matrix: that takes the same time, to a few hundredths.
std::unique_ptr<LinearGroup> make_products(const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members,
                                           const LinearMaker& maker, const WeightStores& stores, Executor& executor) {
  if (auto group = maker ? maker(checkpoint, members) : nullptr) return group;
  if (members.size() == 1) return read_dense_linear(checkpoint, members.front(), stores, executor);
  return join(members, [&](auto one) { return make_products(checkpoint, one, maker, stores, executor); });
}

}  // namespace

std::vector<LinearTensors> linear_tensors(const quant::Checkpoint& checkpoint, int layer,
                                          std::initializer_list<arch::Slot> slots) {
  std::vector<LinearTensors> members;
  for (const arch::Slot slot : slots) {
    const auto bias = arch::bias_slot(slot);
    members.push_back({&checkpoint.tensor({slot, layer}), bias ? checkpoint.find({*bias, layer}) : nullptr});
  }
  return members;
}

void LinearGroup::forward_normed(const float* x, const RmsNorm& norm, int64_t tokens, std::span<float* const> outputs,
                                 Executor& executor) const {
  thread_local std::vector<float> normed;  // kept: decoding allocates nothing
  const auto cols = static_cast<int64_t>(norm.weight.size());
  normed.resize(static_cast<size_t>(tokens * cols));
  kernels::rms_norm_forward(x, norm.weight.data(), norm.epsilon, tokens, cols, normed.data(), executor);
  forward(normed.data(), tokens, outputs, executor);
}

std::unique_ptr<LinearGroup> make_dense_linear(DenseWeights weights) {
  const auto& [weight, rows, cols, bias] = weights;
  CRUMB_ASSERT(static_cast<int64_t>(weight.size()) == rows * cols);
  return std::make_unique<DenseLinear>(share(pack(weight, rows, cols), nullptr), rows, cols, bias, DenseInputs::floats);
}

std::unique_ptr<LinearGroup> read_dense_linear(const quant::Checkpoint& checkpoint, const LinearTensors& tensors,
                                               const WeightStores& stores, Executor& executor, DenseInputs inputs) {
  const auto& weight = *tensors.weight;
  auto bias = tensors.bias == nullptr ? std::vector<float>() : quant::read_all(checkpoint, *tensors.bias);
  return std::make_unique<DenseLinear>(hold_floats(checkpoint, weight, stores, executor), weight.desc.rows(),
                                       weight.desc.cols(), std::move(bias), inputs);
}

std::unique_ptr<LinearGroup> make_linears(const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members,
                                          const LinearMaker& maker, const WeightStores& stores, Executor& executor) {
  const auto rounds = [](const LinearTensors& member) { return member.weight->format.has_value(); };
  const auto activations = quant::activations_of(checkpoint);
  if (!activations || std::ranges::none_of(members, rounds))
    return make_products(checkpoint, members, maker, stores, executor);
  if (!std::ranges::all_of(members, rounds))
    return join(members, [&](auto one) { return make_linears(checkpoint, one, maker, stores, executor); });
  return std::make_unique<RoundedInputs>(make_products(checkpoint, members, maker, stores, executor), *activations,
                                         members.front().weight->desc.cols());
}

}  // namespace crumb::runtime
