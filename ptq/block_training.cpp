#include "ptq/block_training.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/permutation.h"
#include "core/common/rng.h"
#include "kernels/cpu_features.h"
#include "kernels/torch/seq.h"
#include "qat/fake_quantize.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

using arch::Slot;
using torch::Tensor;

constexpr double kBeta1 = 0.9, kBeta2 = 0.99, kEps = 1e-12;

/// A parameter and its moments.
struct Trained {
  Tensor value, mean = {}, square = {};

  explicit Trained(const Tensor& first)
      : value(first.clone().requires_grad_(true)), mean(torch::zeros_like(first)), square(torch::zeros_like(first)) {}

  /// The direction of step `number` (1, 2, ...), of about unit size.
  Tensor direction(BlockTraining::Step step, int64_t number) {
    const Tensor& gradient = value.grad();
    if (step == BlockTraining::Step::sign) return gradient.sign();
    mean.lerp_(gradient, 1 - kBeta1);
    square.mul_(kBeta2).addcmul_(gradient, gradient, 1 - kBeta2);
    const double correct = std::sqrt(1 - std::pow(kBeta2, number)) / (1 - std::pow(kBeta1, number));
    return mean.div(square.sqrt().add_(kEps)).mul_(correct);
  }
};

class TrainedLinear {
 public:
  TrainedLinear(model::LinearModule& linear, const LinearResult& start)
      : linear_(linear),
        format_(start.codes.format),
        rows_(start.codes.rows),
        cols_(start.codes.cols),
        weight_(start.masters),
        log_scale_(torch::tensor(start.codes.scales).view({rows_, -1}).log()),
        zeros_(qat::zeros_of(start.codes)),
        first_weight_(start.masters),
        first_scale_(log_scale_.value.detach().exp()) {
    if (format_.has_mask) mask_ = masked(torch::ones({rows_, cols_}), start.codes.mask);
  }

  /// Puts the quantized weight, with its graph, into the block.
  void place() { linear_.weight = qat::fake_quantize(weight_.value, log_scale_.value, zeros_, format_); }

  void step(const BlockTraining& training, int64_t number, double share) {
    const torch::NoGradGuard no_grad;
    if (!weight_.value.grad().defined()) return;
    const auto by_group = [&](const Tensor& x) { return x.view({rows_, first_scale_.size(1), -1}); };
    const Tensor scale = first_scale_.unsqueeze(2);
    by_group(weight_.value).sub_(by_group(weight_.direction(training.step, number)) * scale * (training.lr * share));
    if (mask_.defined()) weight_.value.mul_(mask_);  // what is pruned does not come back
    log_scale_.value.sub_(log_scale_.direction(training.step, number), training.scale_lr * share);
    if (training.reach > 0) {
      const Tensor reach = (scale * training.reach).expand_as(by_group(weight_.value)).reshape({rows_, cols_});
      weight_.value.copy_(torch::minimum(torch::maximum(weight_.value, first_weight_ - reach), first_weight_ + reach));
    }
    weight_.value.mutable_grad().zero_();
    log_scale_.value.mutable_grad().zero_();
  }

  LinearResult result(const LinearResult& start) const {
    const torch::NoGradGuard no_grad;
    LinearResult out = start;
    out.masters = weight_.value.detach().clone();
    const Tensor scale = kernels::round_scale(log_scale_.value.exp()).contiguous();
    std::copy_n(scale.const_data_ptr<float>(), scale.numel(), out.codes.scales.begin());
    quant::set_nearest_codes(out.masters.const_data_ptr<float>(), out.codes);
    return out;
  }

 private:
  model::LinearModule& linear_;
  quant::QuantFormat format_;
  int64_t rows_, cols_;
  Trained weight_, log_scale_;
  Tensor zeros_, mask_, first_weight_, first_scale_;
};

/// Relative to each token's output, or of all together relative to theirs: a quotient of two sums over tokens.
struct Loss {
  Tensor error, power;
  Tensor value() const { return error / power; }
};
Loss loss_of(const Tensor& output, const Tensor& target, bool normalise_tokens) {
  const Tensor error = (output - target).square().mean(2), power = target.square().mean(2).clamp_min(1e-20);
  if (normalise_tokens) return {(error / power).sum(), torch::full({}, static_cast<double>(error.numel()))};
  return {error.sum(), power.sum()};
}

/// The output of the block as it is, for all windows, into `output`.
void run(BlockWork& work, const Tensor& input, const Tensor& output) {
  const torch::NoGradGuard no_grad;
  for_each_batch(input.size(0), work.windows_at_once, [&](int64_t begin, int64_t end) {
    output.slice(0, begin, end).copy_(work.block.forward(input.slice(0, begin, end), work.context));
  });
}

/// The loss of work.residual over all windows.
double judge(const BlockWork& work, const Tensor& target, bool normalise_tokens) {
  const torch::NoGradGuard no_grad;
  double error = 0, power = 0;
  for_each_batch(target.size(0), work.windows_at_once, [&](int64_t begin, int64_t end) {
    const Loss loss = loss_of(work.residual.slice(0, begin, end), target.slice(0, begin, end), normalise_tokens);
    error += loss.error.item<double>();
    power += loss.power.item<double>();
  });
  return error / power;
}

/// Windows of each step: passes over all of them in an order of their own.
std::vector<int32_t> order_of_windows(int64_t windows, int64_t count, const Rng& rng) {
  std::vector<int32_t> order;
  while (std::ssize(order) < count) {
    const auto pass = permutation(windows, rng, order.size());
    order.insert(order.end(), pass.begin(), pass.end());
  }
  return order;
}

}  // namespace

TrainedBlock train_block(BlockWork& work, const Tensor& input, const Tensor& target, const BlockTraining& training) {
  TrainedBlock out;
  out.loss_before = judge(work, target, training.normalise_tokens);
  std::map<Slot, TrainedLinear> trained;
  std::map<Slot, Tensor> own;
  for (const auto& [slot, start] : work.results) {
    own[slot] = work.linear(slot)->weight;
    trained.emplace(slot, TrainedLinear(*work.linear(slot), start));
  }
  model::BlockContext context = work.context;
  context.compute = kernels::has_fast_bf16() ? torch::kBFloat16 : torch::kFloat32;
  const auto order = order_of_windows(input.size(0), training.steps * training.windows,
                                      Rng(training.seed, static_cast<uint64_t>(work.layer)));
  for (int64_t step = 0; step < training.steps; ++step) {
    const auto first = static_cast<std::ptrdiff_t>(step * training.windows);
    const Tensor picked = torch::tensor(
        std::vector<int32_t>(order.begin() + first, order.begin() + first + training.windows), torch::kLong);
    for (auto& [slot, linear] : trained) linear.place();
    const Tensor output = work.block.forward(input.index_select(0, picked), context);
    loss_of(output, target.index_select(0, picked), training.normalise_tokens).value().backward();
    const double share = 1.0 - static_cast<double>(step) / static_cast<double>(training.steps);
    for (auto& [slot, linear] : trained) linear.step(training, step + 1, share);
  }
  std::map<Slot, LinearResult> results;
  for (const auto& [slot, start] : work.results) {
    results[slot] = trained.at(slot).result(start);
    work.linear(slot)->weight = own.at(slot);
    replace_weight(*work.linear(slot), results[slot].codes);
  }
  run(work, input, work.residual);
  out.loss_after = judge(work, target, training.normalise_tokens);
  out.is_kept = out.loss_after <= out.loss_before;
  if (out.is_kept) {
    work.results = std::move(results);
    return out;
  }
  for (const auto& [slot, start] : work.results) replace_weight(*work.linear(slot), start.codes);
  run(work, input, work.residual);
  return out;
}

namespace {

class TrainedMethod : public BlockMethod {
 public:
  TrainedMethod(std::shared_ptr<BlockMethod> first, const BlockTraining& training)
      : first_(std::move(first)), training_(training) {}

  bool prunes_jointly() const override { return first_->prunes_jointly(); }
  void quantize(BlockWork& work) const override {
    const Tensor input = work.memory.make(work.residual.sizes());
    input.copy_(work.residual);
    const Tensor target = work.memory.make(input.sizes());
    run(work, input, target);  // its weights are float yet
    work.needs_output = true;  // for the error before training
    first_->quantize(work);
    if (work.results.empty()) return;
    BlockTraining training = training_;
    training.windows = std::min(training.windows, input.size(0));
    if (training.passes > 0) training.steps = training.passes * input.size(0) / training.windows;
    const TrainedBlock trained = train_block(work, input, target, training);
    log_info("block {}: error of its output {:.4g} -> {:.4g}{}", work.layer, trained.loss_before, trained.loss_after,
             trained.is_kept ? "" : "; training is left out");
  }
  bool reads_float_prefix() const override { return first_->reads_float_prefix(); }
  bool changes(Slot slot) const override { return first_->changes(slot); }

 private:
  std::shared_ptr<BlockMethod> first_;
  BlockTraining training_;
};

}  // namespace

void check_trainable(const quant::LinearFormats& linears) {
  for (const auto& [grid, key] : linears.grids()) {
    const auto levels = quant::QuantFormat{.grid = grid, .bits = grid.facts().most_bits}.levels();
    bool is_even = true;
    for (size_t i = 2; i < levels.size(); ++i) is_even = is_even && levels[i] - levels[i - 1] == levels[1] - levels[0];
    CRUMB_CHECK(is_even, "{}: training of blocks knows grids of equal steps; {} has none", key, grid.facts().name);
  }
}

std::shared_ptr<BlockMethod> make_trained(std::shared_ptr<BlockMethod> first, const BlockTraining& training) {
  return std::make_shared<TrainedMethod>(std::move(first), training);
}

}  // namespace crumb::ptq
