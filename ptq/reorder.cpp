#include "ptq/reorder.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/common/log.h"

namespace crumb::ptq {
namespace {

using arch::Slot;
using torch::Tensor;

/// A linear and those whose rows are its columns.
struct Reader {
  Slot slot;
  std::vector<Slot> sources;
};
const std::vector<Reader>& readers() {
  static const std::vector<Reader> all{{Slot::o, {Slot::v}}, {Slot::down, {Slot::gate, Slot::up}}};
  return all;
}

bool may_be_reordered(const BlockWork& work, const Reader& reader) {
  const auto is_quantized = [&](Slot slot) { return work.formats.contains(slot); };
  if (!is_quantized(reader.slot)) return false;
  if (std::ranges::all_of(reader.sources, is_quantized)) return true;
  log_info("{}: its inputs keep their order, for not all linears on either side of them are quantized",
           work.name(reader.slot));
  return false;
}

/// By falling energy, those of equal energy as they were. Columns: of the reader; rows: of its sources.
struct Order {
  Tensor columns, rows;  // int64
};

Order falling(const Tensor& energy) {
  const Tensor order = energy.argsort(true, 0, true);
  return {order, order};
}

/// o: energy [heads * head_dim]; each kv head by the energy of all query heads that share it.
Order falling_in_heads(const Tensor& energy, const arch::GqaSpec& gqa) {
  const int64_t share = gqa.heads / gqa.kv_heads;
  const Tensor by_head = energy.view({gqa.kv_heads, share, gqa.head_dim}).sum(1);
  const Tensor within = by_head.argsort(true, 1, true);  // [kv_heads, head_dim]
  const auto starts = [&](int64_t heads) { return torch::arange(heads).unsqueeze(1) * gqa.head_dim; };
  return {(within.repeat_interleave(share, 0) + starts(gqa.heads)).flatten(),
          (within + starts(gqa.kv_heads)).flatten()};
}

void reorder(const BlockWork& work, const Reader& reader, const Order& order) {
  Tensor columns = work.linear(reader.slot)->weight.detach();
  columns.copy_(columns.index_select(1, order.columns));
  for (const Slot slot : reader.sources) {
    const auto& linear = work.linear(slot);
    for (const Tensor& parameter : {linear->weight, linear->bias}) {
      if (!parameter.defined()) continue;
      Tensor rows = parameter.detach();
      rows.copy_(rows.index_select(0, order.rows));
    }
  }
}

class ReorderedMethod : public BlockMethod {
 public:
  explicit ReorderedMethod(std::shared_ptr<const BlockMethod> rounding) : rounding_(std::move(rounding)) {}

  void quantize(BlockWork& work) const override {
    const torch::NoGradGuard no_grad;
    std::vector<std::pair<const Reader*, Order>> found;
    for_each_group(work, [&](const std::vector<Slot>& group, const Tensor& input) {
      for (const Reader& reader : readers()) {
        if (reader.slot != group.front() || !may_be_reordered(work, reader)) continue;
        const Tensor energy = measure_inputs(input, work.windows_at_once, 0, work.name(reader.slot)).gram.diagonal();
        found.emplace_back(
            &reader, reader.slot == Slot::o ? falling_in_heads(energy, work.block.spec().gqa()) : falling(energy));
      }
    });
    for (const auto& [reader, order] : found) reorder(work, *reader, order);
    rounding_->quantize(work);
  }
  bool changes(Slot slot) const override {
    for (const Reader& reader : readers()) {
      for (const Slot source : reader.sources)
        if (slot == arch::bias_slot(source)) return true;
    }
    return rounding_->changes(slot);
  }
  bool prunes_jointly() const override { return rounding_->prunes_jointly(); }
  bool reads_float_prefix() const override { return rounding_->reads_float_prefix(); }

 private:
  std::shared_ptr<const BlockMethod> rounding_;
};

}  // namespace

std::shared_ptr<BlockMethod> make_reordered(std::shared_ptr<const BlockMethod> rounding) {
  return std::make_shared<ReorderedMethod>(std::move(rounding));
}

}  // namespace crumb::ptq
