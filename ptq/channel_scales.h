// Scales of the channels between linears and what makes their inputs, fused into both. A group of linears reads x; with
// W -> W diag(s) and x -> x / s they compute what they did, but W and x are easier to quantize. What x comes from is
// divided by s, so a file needs nothing new:
//
//   q, k, v   the gain of the norm before attention
//   o         rows and bias of v; query heads that share a kv head share its scales
//   gate, up  the gain of the norm before them
//   down      rows and bias of up: silu(gate) * up is linear in up
//
// Gains and biases are bf16 in a file. s is therefore corrected to the quotient of what stands there before and after:
// the float block computes the same to the rounding of floats. AWQ and SmoothQuant differ in which s they choose.
#pragma once

#include <torch/torch.h>

#include <map>
#include <memory>

#include "ptq/block_walk.h"

namespace crumb::ptq {

/// Linears that read one input, all of them to be quantized, while their scales are searched. A channel is what has a
/// scale of its own: an input, or, of o, the inputs that come from one row of v.
class ScaledGroup {
 public:
  /// input [windows, tokens, cols]: what they read.
  ScaledGroup(const BlockWork& work, const std::vector<arch::Slot>& readers, const torch::Tensor& input);

  const std::map<arch::Slot, torch::Tensor>& weights() const { return weights_; }  // [rows, cols] as they are
  const InputStatistics& inputs() const { return inputs_; }                        // before any rounding of activations
  const torch::Tensor& sample() const { return sample_; }                          // of the inputs, [n, cols]
  const quant::ActivationRounder* rounder() const { return work_.rounder; }
  const quant::QuantFormat& format(arch::Slot slot) const { return work_.formats.at(slot); }

  /// [cols] -> [channels]: over the inputs of each channel.
  torch::Tensor mean(const torch::Tensor& by_column) const;
  torch::Tensor max(const torch::Tensor& by_column) const;
  /// [channels] -> [cols]
  torch::Tensor columns(const torch::Tensor& by_channel) const;

  /// The scales [channels] next to s that can be fused exactly: s > 0 in the middle of its range (sqrt(least * most) =
  /// 1), bounded; channels without inputs get 1.
  torch::Tensor fusible(const torch::Tensor& s) const;
  /// Fuses what fusible() gave.
  void fuse(const torch::Tensor& s) const;

 private:
  torch::Tensor rounded_vector() const;

  const BlockWork& work_;
  InputStatistics inputs_;
  torch::Tensor sample_;
  std::map<arch::Slot, torch::Tensor> weights_;
  arch::Slot source_;      // what the inputs come from: a norm or a linear
  int64_t share_, width_;  // the inputs: [cols / (share * width), share, width], channels without the middle
};

/// The sizes of channels, kept from being so small that their powers are scales of any size.
torch::Tensor channel_size(const torch::Tensor& by_channel);
/// At most `rows` rows of w, spread evenly.
torch::Tensor spread_rows(const torch::Tensor& w, int64_t rows);

/// Which scales a group gets.
class ChannelScaleSearch {
 public:
  virtual ~ChannelScaleSearch() = default;
  /// [channels], of ScaledGroup::fusible.
  virtual torch::Tensor find(const ScaledGroup& group) const = 0;
};

/// Scales each block by what `search` finds on the inputs that the quantized blocks before it give, then goes on with
/// `rounding`. Groups with a linear that stays in floats, or whose inputs come from one, keep their scales.
std::shared_ptr<BlockMethod> make_scaled(std::shared_ptr<const ChannelScaleSearch> search,
                                         std::shared_ptr<const BlockMethod> rounding);

}  // namespace crumb::ptq
