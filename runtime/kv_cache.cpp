#include "runtime/kv_cache.h"

#include <algorithm>
#include <utility>

#include "core/common/error.h"

namespace crumb::runtime {
namespace {

constexpr int64_t kFirstCapacity = 64;

std::vector<float> enlarged(const std::vector<float>& old, int64_t heads, int64_t old_stride, int64_t new_stride,
                            int64_t used) {
  std::vector<float> result(static_cast<size_t>(heads * new_stride));
  for (int64_t head = 0; head < heads; ++head) {
    std::copy_n(old.begin() + head * old_stride, used, result.begin() + head * new_stride);
  }
  return result;
}

}  // namespace

KvCache::KvCache(const arch::DecoderSpec& spec) : limit_(spec.context_length) {
  for (const auto& layer : spec.layers) layers_.push_back({layer.gqa().kv_heads, layer.gqa().head_dim, {}, {}});
}

void KvCache::truncate(int64_t length) {
  CRUMB_ASSERT(0 <= length && length <= length_);
  length_ = length;
}

std::unique_ptr<SequenceState> KvCache::fork() const { return std::make_unique<KvCache>(*this); }

void KvCache::reserve(int64_t length) {
  if (length <= capacity_) return;
  const int64_t capacity = std::max(length, std::min(limit_, std::max(kFirstCapacity, 2 * capacity_)));
  for (auto& layer : layers_) {
    const int64_t old_stride = capacity_ * layer.head_dim, stride = capacity * layer.head_dim;
    const int64_t used = length_ * layer.head_dim;
    layer.keys = enlarged(layer.keys, layer.kv_heads, old_stride, stride, used);
    layer.values = enlarged(layer.values, layer.kv_heads, old_stride, stride, used);
  }
  capacity_ = capacity;
}

}  // namespace crumb::runtime
