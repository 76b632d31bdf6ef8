// One block with what a method of activations is given of it.
#pragma once

#include <torch/torch.h>

#include "ptq/block_walk.h"
#include "ptq/channel_scales.h"
#include "tests/ptq/random_model.h"

namespace crumb::testing {

/// One float block of a model with random inputs, all of its linears to be quantized.
class OneBlock {
 public:
  OneBlock(const quant::Checkpoint& model, int layer,
           const quant::QuantFormat& format = {quant::Grid::intn, 4, true, 0})
      : spec_(model.spec().layers[static_cast<size_t>(layer)]),
        block_(spec_, model.spec().rms_norm_eps, layer, arch::tensor_table(model.spec()),
               model::checkpoint_source(model), model::make_float_linear),
        memory_("", 1e18),
        work_{.layer = layer,
              .block = block_,
              .context = {.rotary = model::make_rotary_table(spec_.rope, kTokens),
                          .mask = model::make_window_mask(spec_.window, kTokens),
                          .round_small_tensors = true},
              .residual = {},
              .formats = {},
              .memory = memory_} {
    for (const auto& parameter : block_.parameters()) parameter.set_requires_grad(false);
    torch::manual_seed(layer + 1);
    // channels of very different sizes
    input_ = torch::randn({kWindows, kTokens, model.spec().hidden_size}) *
             torch::exp(2 * torch::randn({model.spec().hidden_size}));
    work_.residual = input_.clone();
    for (const auto& [id, linear] : block_.linears_by_id()) work_.formats[id.slot] = format;
  }

  ptq::BlockWork& work() { return work_; }
  torch::Tensor output() { return block_.forward(input_, work_.context); }

 private:
  static constexpr int64_t kWindows = 2, kTokens = 20;

  arch::LayerSpec spec_;
  model::Block block_;
  ptq::ActivationMemory memory_;
  ptq::BlockWork work_;
  torch::Tensor input_;
};

/// What changes a block before it is rounded is looked at alone.
class NoRounding : public ptq::BlockMethod {
 public:
  void quantize(ptq::BlockWork&) const override {}
};

/// The group that begins with a slot, with the inputs it has in the float block, [windows, tokens, cols].
inline ptq::ScaledGroup group_of(ptq::BlockWork& work, arch::Slot slot, torch::Tensor* inputs = nullptr) {
  ptq::GroupedPass pass(work);
  while (pass.group().front() != slot) pass.advance();
  if (inputs != nullptr) *inputs = pass.input().clone();
  return {work, pass.group(), pass.input()};
}

}  // namespace crumb::testing
