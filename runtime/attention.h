// Causal grouped-query attention over the cached keys and values of several sequences.
#pragma once

#include <cstdint>
#include <vector>

#include "core/arch/decoder_spec.h"
#include "core/common/executor.h"
#include "runtime/kv_cache.h"

namespace crumb::runtime {

/// New tokens of one sequence inside a pass: rows [first, first + count) of the activations, at positions `position`
/// and on.
struct Segment {
  KvCache* cache;
  int64_t first, count, position;
};

/// Some tokens' queries of the heads that share a key/value head: a piece of work for a thread.
struct AttentionItem {
  Segment segment;  // of these tokens alone
  int64_t kv_head;
};
/// Cuts the segments into items, key/value head by key/value head. `items` is replaced.
void list_attention_items(const std::vector<Segment>& segments, const arch::GqaSpec& gqa,
                          std::vector<AttentionItem>& items);

/// out[tokens, heads * head_dim] = softmax(q K^T / sqrt(head_dim)) V; a query at position p sees keys max(0, p - window
/// + 1) .. p (window 0: 0 .. p), which are in the caches already. q like out.
void attend(const std::vector<AttentionItem>& items, int64_t layer, const arch::LayerSpec& spec, const float* q,
            float* out, Executor& executor);

}  // namespace crumb::runtime
