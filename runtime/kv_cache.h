// Keys and values of one sequence in float32.
#pragma once

#include <memory>
#include <vector>

#include "core/arch/decoder_spec.h"
#include "runtime/decoder.h"

namespace crumb::runtime {

class KvCache : public SequenceState {
 public:
  explicit KvCache(const arch::DecoderSpec& spec);

  int64_t length() const override { return length_; }
  /// Windows do not matter: keys that no query sees any more are kept, too.
  void truncate(int64_t length) override;
  std::unique_ptr<SequenceState> fork() const override;

  /// Makes room for `length` positions; what is there stays.
  void reserve(int64_t length);
  /// Positions up to here are filled in every layer.
  void set_length(int64_t length) { length_ = length; }

  int64_t num_layers() const { return static_cast<int64_t>(layers_.size()); }
  int64_t kv_heads(int64_t layer) const { return layers_[static_cast<size_t>(layer)].kv_heads; }
  int64_t head_dim(int64_t layer) const { return layers_[static_cast<size_t>(layer)].head_dim; }
  /// [capacity, head_dim] of one key/value head.
  float* keys(int64_t layer, int64_t kv_head) { return at(layers_[static_cast<size_t>(layer)].keys, layer, kv_head); }
  float* values(int64_t layer, int64_t kv_head) {
    return at(layers_[static_cast<size_t>(layer)].values, layer, kv_head);
  }

 private:
  struct Layer {
    int64_t kv_heads, head_dim;
    std::vector<float> keys, values;  // [kv_heads, capacity, head_dim]
  };
  float* at(std::vector<float>& data, int64_t layer, int64_t kv_head) {
    return data.data() + kv_head * capacity_ * layers_[static_cast<size_t>(layer)].head_dim;
  }

  std::vector<Layer> layers_;
  int64_t length_ = 0, capacity_ = 0, limit_;
};

}  // namespace crumb::runtime
