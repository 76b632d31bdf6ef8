#include "runtime/kv_cache.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/common/error.h"
#include "core/common/quantity.h"
#include "core/common/resident.h"
#include "kernels/attention.h"

namespace crumb::runtime {
namespace {

constexpr int64_t kFirstCapacity = 64;

int64_t whole_panels(int64_t positions) {
  return (positions + kernels::kKeyPanel - 1) / kernels::kKeyPanel * kernels::kKeyPanel;
}

template <class T>
std::vector<T> enlarged(const std::vector<T>& old, int64_t heads, int64_t old_stride, int64_t new_stride,
                        int64_t used) {
  std::vector<T> result(static_cast<size_t>(heads * new_stride));
  for (int64_t head = 0; head < heads; ++head) {
    std::copy_n(old.begin() + head * old_stride, used, result.begin() + head * new_stride);
  }
  return result;
}

float as_float(float x) { return x; }
float as_float(Half x) { return from_f16(x.bits); }
void assign(float x, float& to) { to = x; }
void assign(float x, Half& to) {
  to.bits = to_f16(x);
  if (!std::isfinite(from_f16(to.bits)) && std::isfinite(x))
    run_error("a key or value of {} is beyond what float16 holds; use --cache-type f32", x);
}

}  // namespace

KvCache::KvCache(const arch::DecoderSpec& spec, CacheType type) : limit_(spec.context_length) {
  for (const auto& layer : spec.layers) {
    layers_.push_back({layer.gqa().kv_heads, layer.gqa().head_dim, {}});
    if (type == CacheType::f16) layers_.back().data = Data<Half>();
  }
}

void KvCache::truncate(int64_t length) {
  CRUMB_ASSERT(0 <= length && length <= length_);
  length_ = length;
}

std::unique_ptr<SequenceState> KvCache::fork() const { return std::make_unique<KvCache>(*this); }

int64_t KvCache::bytes_of(const Layer& layer, int64_t capacity) {
  const size_t of_one = std::holds_alternative<Data<Half>>(layer.data) ? sizeof(Half) : sizeof(float);
  return 2 * layer.kv_heads * capacity * layer.head_dim * static_cast<int64_t>(of_one);
}

int64_t KvCache::bytes() const {
  int64_t total = 0;
  for (const auto& layer : layers_) total += bytes_of(layer, capacity_);
  return total;
}

/// Layer by layer the old is copied to the new, so that only one lies there twice.
int64_t KvCache::needed_for(int64_t capacity) const {
  int64_t total = 0, largest = 0;
  for (const auto& layer : layers_) {
    total += bytes_of(layer, capacity);
    largest = std::max(largest, bytes_of(layer, capacity_));
  }
  return total - bytes() + largest;
}

void KvCache::reserve(int64_t length) {
  if (length <= capacity_) return;
  const int64_t wanted = std::max(length, std::min(limit_, std::max(kFirstCapacity, 2 * capacity_)));
  const int64_t available = available_memory();
  int64_t capacity = whole_panels(wanted);
  if (needed_for(capacity) > available) capacity = whole_panels(length);  // room for more is a wish
  if (const int64_t needed = needed_for(capacity); needed > available) {
    const bool is_float = !layers_.empty() && std::holds_alternative<Data<float>>(layers_.front().data);
    run_error("keys and values of {} positions take {} more than is held now; {} of memory are available; use {}",
              capacity, format_bytes(needed), format_bytes(available),
              is_float ? "--cache-type f16, or a shorter text" : "a shorter text");
  }
  for (auto& layer : layers_) {
    const int64_t old_stride = capacity_ * layer.head_dim, stride = capacity * layer.head_dim;
    const int64_t used = whole_panels(length_) * layer.head_dim;
    std::visit(
        [&](auto& data) {
          data.keys = enlarged(data.keys, layer.kv_heads, old_stride, stride, used);
          data.values = enlarged(data.values, layer.kv_heads, old_stride, stride, used);
        },
        layer.data);
  }
  capacity_ = capacity;
}

void KvCache::put(int64_t layer, int64_t kv_head, int64_t position, const float* key, const float* value) {
  auto& to = layers_[static_cast<size_t>(layer)];
  const int64_t dim = to.head_dim, first = offset(to, kv_head);
  std::visit(
      [&](auto& data) {
        auto* const keys = data.keys.data() + first + kernels::key_index(position, 0, dim);
        auto* const values = data.values.data() + first + position * dim;
        for (int64_t i = 0; i < dim; ++i) assign(key[i], keys[i * kernels::kKeyPanel]);
        for (int64_t i = 0; i < dim; ++i) assign(value[i], values[i]);
      },
      to.data);
}

std::vector<float> KvCache::keys(int64_t layer, int64_t kv_head, int64_t count) const {
  const auto& from = layer_of(layer);
  std::vector<float> out;
  out.reserve(static_cast<size_t>(count * from.head_dim));
  std::visit(
      [&](const auto& data) {
        const auto* keys = data.keys.data() + offset(from, kv_head);
        for (int64_t position = 0; position < count; ++position) {
          for (int64_t i = 0; i < from.head_dim; ++i)
            out.push_back(as_float(keys[kernels::key_index(position, i, from.head_dim)]));
        }
      },
      from.data);
  return out;
}

std::vector<float> KvCache::values(int64_t layer, int64_t kv_head, int64_t count) const {
  const auto& from = layer_of(layer);
  std::vector<float> out(static_cast<size_t>(count * from.head_dim));
  std::visit(
      [&](const auto& data) {
        const auto* values = data.values.data() + offset(from, kv_head);
        std::transform(values, values + out.size(), out.begin(), [](auto x) { return as_float(x); });
      },
      from.data);
  return out;
}

KvCache::AnyView KvCache::view(int64_t layer, int64_t kv_head) const {
  const auto& from = layer_of(layer);
  const int64_t first = offset(from, kv_head);
  return std::visit(
      [&]<class T>(const Data<T>& data) -> AnyView {
        return View<T>{data.keys.data() + first, data.values.data() + first};
      },
      from.data);
}

}  // namespace crumb::runtime
