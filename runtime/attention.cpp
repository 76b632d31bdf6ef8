#include "runtime/attention.h"

#include <algorithm>
#include <variant>

#include "kernels/attention.h"

namespace crumb::runtime {
namespace {

constexpr int64_t kQueriesPerItem = 72;  // over all heads of a group

}  // namespace

void list_attention_items(const std::vector<Segment>& segments, const arch::GqaSpec& gqa,
                          std::vector<AttentionItem>& items) {
  items.clear();
  const int64_t step = std::max<int64_t>(1, kQueriesPerItem / (gqa.heads / gqa.kv_heads));
  for (const auto& segment : segments) {
    for (int64_t kv_head = 0; kv_head < gqa.kv_heads; ++kv_head) {
      for (int64_t begin = 0; begin < segment.count; begin += step) {
        const int64_t count = std::min(step, segment.count - begin);
        items.push_back({{segment.cache, segment.first + begin, count, segment.position + begin}, kv_head});
      }
    }
  }
}

void attend(const std::vector<AttentionItem>& items, int64_t layer, const arch::LayerSpec& spec, const float* q,
            float* out, Executor& executor) {
  const auto& gqa = spec.gqa();
  const int64_t row = gqa.heads * gqa.head_dim, group = gqa.heads / gqa.kv_heads;
  executor.run_in_turns(static_cast<int64_t>(items.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const auto& [part, kv_head] = items[static_cast<size_t>(i)];
      const int64_t offset = part.first * row + kv_head * group * gqa.head_dim;
      const auto attend_over = [&, &part = part]<class T>(const KvCache::View<T>& view) {
        kernels::attend(kernels::AttentionArguments<T>{.q = q + offset,
                                                       .out = out + offset,
                                                       .stride = row,
                                                       .count = part.count,
                                                       .heads = group,
                                                       .dim = gqa.head_dim,
                                                       .position = part.position,
                                                       .window = spec.window,
                                                       .keys = view.keys,
                                                       .values = view.values,
                                                       .key_scales = view.key_scales,
                                                       .value_scales = view.value_scales});
      };
      std::visit(attend_over, part.cache->view(layer, kv_head));
    }
  });
}

}  // namespace crumb::runtime
