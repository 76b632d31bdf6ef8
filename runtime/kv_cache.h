// Keys and values of one sequence, in float32, float16, or bytes with a scale for each head of a position.
#pragma once

#include <memory>
#include <variant>
#include <vector>

#include "core/arch/decoder_spec.h"
#include "core/common/half.h"
#include "core/common/large_vector.h"
#include "runtime/decoder.h"

namespace crumb::runtime {

class KvCache : public SequenceState {
 public:
  KvCache(const arch::DecoderSpec& spec, CacheType type);

  int64_t length() const override { return length_; }
  /// Windows do not matter: keys that no query sees any more are kept, too.
  void truncate(int64_t length) override;
  std::unique_ptr<SequenceState> fork() const override;
  int64_t bytes() const override;

  void reserve(int64_t length) override;
  /// Positions up to here are filled in every layer.
  void set_length(int64_t length) { length_ = length; }

  int64_t num_layers() const { return static_cast<int64_t>(layers_.size()); }
  int64_t kv_heads(int64_t layer) const { return layer_of(layer).kv_heads; }
  int64_t head_dim(int64_t layer) const { return layer_of(layer).head_dim; }

  /// key and value [head_dim] of a position that there is room for. RunError where float16 does not hold them.
  void put(int64_t layer, int64_t kv_head, int64_t position, const float* key, const float* value);
  /// [count, head_dim]: of the first positions, as floats.
  std::vector<float> keys(int64_t layer, int64_t kv_head, int64_t count) const;
  std::vector<float> values(int64_t layer, int64_t kv_head, int64_t count) const;

  /// As kernels/attention.h reads them, of one head.
  template <class T>
  struct View {
    const T *keys, *values;
    const float *key_scales = nullptr, *value_scales = nullptr;
  };
  using AnyView = std::variant<View<float>, View<Half>, View<int8_t>>;
  AnyView view(int64_t layer, int64_t kv_head) const;

 private:
  template <class T>
  struct Data {
    LargeVector<T> keys, values;                  // [kv_heads, capacity, head_dim], keys by kernels::key_index
    LargeVector<float> key_scales, value_scales;  // [kv_heads, capacity], of int8_t
  };
  struct Layer {
    int64_t kv_heads, head_dim;
    std::variant<Data<float>, Data<Half>, Data<int8_t>> data;
  };
  const Layer& layer_of(int64_t index) const { return layers_[static_cast<size_t>(index)]; }
  /// Of keys and values with so many positions.
  static int64_t bytes_of(const Layer& layer, int64_t capacity);
  /// That making room for so many positions takes beyond what is held.
  int64_t needed_for(int64_t capacity) const;
  int64_t offset(const Layer& layer, int64_t kv_head) const { return kv_head * capacity_ * layer.head_dim; }

  std::vector<Layer> layers_;
  int64_t length_ = 0, capacity_ = 0, limit_;  // capacity: whole panels of keys
};

}  // namespace crumb::runtime
