#include "runtime/kv_cache.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "core/common/error.h"
#include "core/common/finite.h"
#include "core/common/quantity.h"
#include "core/common/resident.h"
#include "kernels/attention.h"

namespace crumb::runtime {
namespace {

constexpr int64_t kFirstCapacity = 64;

int64_t whole_panels(int64_t positions) {
  return (positions + kernels::kKeyPanel - 1) / kernels::kKeyPanel * kernels::kKeyPanel;
}

/// What is not used yet is zeros.
template <class T>
void enlarge(LargeVector<T>& values, int64_t heads, int64_t old_stride, int64_t new_stride, int64_t used) {
  LargeVector<T> result(static_cast<size_t>(heads * new_stride));
  for (int64_t head = 0; head < heads; ++head) {
    const auto to = result.begin() + head * new_stride;
    std::copy_n(values.begin() + head * old_stride, used, to);
    std::fill(to + used, to + new_stride, T{});
  }
  values = std::move(result);
}

float as_float(float x) { return x; }
float as_float(Half x) { return from_f16(x.bits); }
float as_float(int8_t x) { return x; }
/// Of a position; of others than int8_t 1.
float scale_at(const LargeVector<float>& scales, int64_t at) {
  return scales.empty() ? 1.0f : scales[static_cast<size_t>(at)];
}

void assign(float x, float& to) { to = x; }
void assign(float x, Half& to) {
  constexpr uint16_t kExponent = 0x7c00;  // all ones: NaN or infinity
  to.bits = to_f16(x);
  if ((to.bits & kExponent) == kExponent && std::isfinite(x))
    run_error("a key or value of {} is beyond what float16 holds; use --cache-type f32", x);
}
template <class T>
void assign_all(const float* x, int64_t n, T* to, int64_t stride, float* /*scale*/) {
  for (int64_t i = 0; i < n; ++i) assign(x[i], to[i * stride]);
}
/// The scale is max|x| / 127 rounded up to 16 significant bits: codes times it are exact then, and rounding those again
/// gives the same codes and scale, so that what was saved as floats goes on as it would have. NaN where one is not
/// finite.
void assign_all(const float* x, int64_t n, int8_t* to, int64_t stride, float* scale) {
  constexpr uint32_t kBelow = 0xFF;
  float most = 0;
  const bool is_finite = are_finite({x, static_cast<size_t>(n)});
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::abs(x[i]));
  *scale = is_finite ? std::bit_cast<float>((std::bit_cast<uint32_t>(most / 127.0f) + kBelow) & ~kBelow) : NAN;
  const float divisor = *scale > 0 ? *scale : INFINITY;
  for (int64_t i = 0; i < n; ++i)
    to[i * stride] = is_finite ? static_cast<int8_t>(std::nearbyint(x[i] / divisor)) : int8_t{0};
}

}  // namespace

KvCache::KvCache(const arch::DecoderSpec& spec, CacheType type) : limit_(spec.context_length) {
  for (const auto& layer : spec.layers) {
    layers_.push_back({layer.gqa().kv_heads, layer.gqa().head_dim, {}});
    if (type == CacheType::f16) layers_.back().data = Data<Half>();
    if (type == CacheType::q8) layers_.back().data = Data<int8_t>();
  }
}

void KvCache::truncate(int64_t length) {
  CRUMB_ASSERT(0 <= length && length <= length_);
  length_ = length;
}

std::unique_ptr<SequenceState> KvCache::fork() const { return std::make_unique<KvCache>(*this); }

int64_t KvCache::bytes_of(const Layer& layer, int64_t capacity) {
  const int64_t of_one =
      std::visit([]<class T>(const Data<T>&) { return static_cast<int64_t>(sizeof(T)); }, layer.data);
  const int64_t of_scale = of_one == 1 ? static_cast<int64_t>(sizeof(float)) : 0;
  return 2 * layer.kv_heads * capacity * (layer.head_dim * of_one + of_scale);
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
    constexpr const char* kSmaller[] = {"--cache-type f16, or ", "--cache-type q8, or ", ""};  // by type
    run_error(
        "keys and values of {} positions take {} more than is held now; {} of memory are available; use {}a "
        "shorter text",
        capacity, format_bytes(needed), format_bytes(available), kSmaller[layers_.front().data.index()]);
  }
  for (auto& layer : layers_) {
    const int64_t old_stride = capacity_ * layer.head_dim, stride = capacity * layer.head_dim;
    const int64_t used = whole_panels(length_) * layer.head_dim;
    std::visit(
        [&]<class T>(Data<T>& data) {
          enlarge(data.keys, layer.kv_heads, old_stride, stride, used);
          enlarge(data.values, layer.kv_heads, old_stride, stride, used);
          if (sizeof(T) > 1) return;
          enlarge(data.key_scales, layer.kv_heads, capacity_, capacity, length_);
          enlarge(data.value_scales, layer.kv_heads, capacity_, capacity, length_);
        },
        layer.data);
  }
  capacity_ = capacity;
}

void KvCache::put(int64_t layer, int64_t kv_head, int64_t position, const float* key, const float* value) {
  auto& to = layers_[static_cast<size_t>(layer)];
  const int64_t dim = to.head_dim, first = offset(to, kv_head);
  std::visit(
      [&]<class T>(Data<T>& data) {
        const int64_t scale = sizeof(T) > 1 ? 0 : kv_head * capacity_ + position;  // others have none
        assign_all(key, dim, data.keys.data() + first + kernels::key_index(position, 0, dim), kernels::kKeyPanel,
                   data.key_scales.data() + scale);
        assign_all(value, dim, data.values.data() + first + position * dim, 1, data.value_scales.data() + scale);
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
          const float scale = scale_at(data.key_scales, kv_head * capacity_ + position);
          for (int64_t i = 0; i < from.head_dim; ++i)
            out.push_back(as_float(keys[kernels::key_index(position, i, from.head_dim)]) * scale);
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
        for (int64_t i = 0; i < count * from.head_dim; ++i)
          out[static_cast<size_t>(i)] =
              as_float(values[i]) * scale_at(data.value_scales, kv_head * capacity_ + i / from.head_dim);
      },
      from.data);
  return out;
}

KvCache::AnyView KvCache::view(int64_t layer, int64_t kv_head) const {
  const auto& from = layer_of(layer);
  const int64_t first = offset(from, kv_head);
  return std::visit(
      [&]<class T>(const Data<T>& data) -> AnyView {
        const int64_t scale = sizeof(T) > 1 ? 0 : kv_head * capacity_;
        return View<T>{data.keys.data() + first, data.values.data() + first, data.key_scales.data() + scale,
                       data.value_scales.data() + scale};
      },
      from.data);
}

}  // namespace crumb::runtime
