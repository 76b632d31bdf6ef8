#include "ptq/channel_scales.h"

#include <algorithm>
#include <utility>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/permutation.h"
#include "core/common/rng.h"

namespace crumb::ptq {
namespace {

using arch::Slot;
using torch::Tensor;

/// Scales of a group lie within this factor of their middle, so that weights and gains stay far from the ends of bf16
/// and fp16.
constexpr double kMostScale = 1e4;

/// What makes the inputs of the group that begins with a slot.
struct Source {
  Slot first_reader, slot;
};
constexpr Source kSources[] = {
    {Slot::q, Slot::attention_norm}, {Slot::o, Slot::v}, {Slot::gate, Slot::ffn_norm}, {Slot::down, Slot::up}};

Slot source_of(const std::vector<Slot>& readers) {
  const auto* found = std::ranges::find(kSources, readers.front(), &Source::first_reader);
  CRUMB_ASSERT(found != std::end(kSources));
  return found->slot;
}

/// A linear has a slot for its bias, a norm has none.
bool is_linear(Slot slot) { return arch::bias_slot(slot).has_value(); }

/// Tokens from anywhere in the windows.
Tensor sample_of(const Tensor& input) {
  constexpr int64_t kTokens = 256;
  const int64_t tokens = input.size(0) * input.size(1);
  const auto order = permutation(tokens, Rng(0, 0), 0);
  const Tensor picked =
      torch::tensor(std::vector<int32_t>(order.begin(), order.begin() + std::min(tokens, kTokens)), torch::kLong);
  return input.view({tokens, -1}).index_select(0, picked);
}

bool may_be_scaled(const BlockWork& work, const std::vector<Slot>& readers) {
  const auto is_quantized = [&](Slot slot) { return work.formats.contains(slot); };
  if (std::ranges::none_of(readers, is_quantized)) return false;
  const Slot source = source_of(readers);
  if (std::ranges::all_of(readers, is_quantized) && (!is_linear(source) || is_quantized(source))) return true;
  log_info("{}: its inputs are not scaled, for not all linears on either side of them are quantized",
           work.name(*std::ranges::find_if(readers, is_quantized)));
  return false;
}

class ScaledMethod : public BlockMethod {
 public:
  ScaledMethod(std::shared_ptr<const ChannelScaleSearch> search, std::shared_ptr<const BlockMethod> rounding)
      : search_(std::move(search)), rounding_(std::move(rounding)) {}

  void quantize(BlockWork& work) const override {
    const torch::NoGradGuard no_grad;
    scale(work);
    rounding_->quantize(work);
  }
  bool changes(Slot slot) const override {
    const auto is_changed = [&](const Source& source) {
      return slot == (is_linear(source.slot) ? *arch::bias_slot(source.slot) : source.slot);
    };
    return std::ranges::any_of(kSources, is_changed) || rounding_->changes(slot);
  }
  bool prunes_jointly() const override { return rounding_->prunes_jointly(); }

 private:
  /// All scales are found before the first is fused: the inputs on the way are those of the block as it was.
  void scale(BlockWork& work) const {
    std::vector<std::pair<ScaledGroup, Tensor>> found;
    for_each_group(work, [&](const std::vector<Slot>& readers, const Tensor& input) {
      if (!may_be_scaled(work, readers)) return;
      ScaledGroup group(work, readers, input);
      Tensor s = search_->find(group);
      found.emplace_back(std::move(group), std::move(s));
    });
    for (const auto& [group, s] : found) group.fuse(s);
  }

  std::shared_ptr<const ChannelScaleSearch> search_;
  std::shared_ptr<const BlockMethod> rounding_;
};

}  // namespace

ScaledGroup::ScaledGroup(const BlockWork& work, const std::vector<Slot>& readers, const Tensor& input)
    : work_(work),
      inputs_(measure_inputs(input, work.windows_at_once, 0, work.name(readers.front()))),
      sample_(sample_of(input)),
      source_(source_of(readers)),
      share_(1),
      width_(input.size(2)) {
  for (const Slot slot : readers) weights_[slot] = work.linear(slot)->weight.detach();
  if (source_ != Slot::v) return;
  const arch::GqaSpec& gqa = work.block.spec().gqa();
  share_ = gqa.heads / gqa.kv_heads;
  width_ = gqa.head_dim;
}

Tensor ScaledGroup::mean(const Tensor& by_column) const {
  return by_column.view({-1, share_, width_}).mean(1).flatten();
}

Tensor ScaledGroup::max(const Tensor& by_column) const {
  return by_column.view({-1, share_, width_}).amax(1).flatten();
}

Tensor ScaledGroup::columns(const Tensor& by_channel) const {
  return by_channel.view({-1, 1, width_}).expand({-1, share_, -1}).flatten();
}

/// The gain or bias that is divided, as it is shipped; undefined: a linear without bias.
Tensor ScaledGroup::rounded_vector() const {
  const Tensor vector = is_linear(source_) ? work_.linear(source_)->bias
                                           : work_.block.parameters_by_id().at(arch::TensorId{source_, work_.layer});
  return vector.defined() ? model::round_to_bf16(vector.detach()) : Tensor();
}

Tensor ScaledGroup::fusible(const Tensor& s) const {
  const Tensor lives = max(inputs_.max_abs) > 0;
  if (!lives.any().item<bool>()) return torch::ones_like(s);
  const Tensor alive = s.masked_select(lives);
  Tensor out = s / (alive.min().sqrt() * alive.max().sqrt());
  out = out.clamp(1 / kMostScale, kMostScale).where(lives, torch::ones_like(s));
  const Tensor before = rounded_vector();
  if (!before.defined()) return out;
  const Tensor after = model::round_to_bf16(before / out);
  return (before / after).where((before != 0).logical_and(after != 0), out);
}

void ScaledGroup::fuse(const Tensor& s) const {
  const torch::NoGradGuard no_grad;
  for (const auto& [slot, weight] : weights_) weight.mul_(columns(s));
  const Tensor before = rounded_vector();
  if (is_linear(source_)) work_.linear(source_)->weight.detach().div_(s.unsqueeze(1));
  if (!before.defined()) return;
  const arch::TensorId id{is_linear(source_) ? *arch::bias_slot(source_) : source_, work_.layer};
  work_.block.parameters_by_id().at(id).detach().copy_(model::round_to_bf16(before / s));
}

Tensor channel_size(const Tensor& by_channel) {
  constexpr double kLeastShare = 1e-4;
  return by_channel.clamp_min(std::max(by_channel.max().item<double>() * kLeastShare, 1e-30));
}

Tensor spread_rows(const Tensor& w, int64_t rows) {
  return w.slice(0, 0, w.size(0), (w.size(0) - 1) / std::min(w.size(0), rows) + 1);
}

std::shared_ptr<BlockMethod> make_scaled(std::shared_ptr<const ChannelScaleSearch> search,
                                         std::shared_ptr<const BlockMethod> rounding) {
  return std::make_shared<ScaledMethod>(std::move(search), std::move(rounding));
}

}  // namespace crumb::ptq
