// A checkpoint in memory with random weights, of any spec: layers that differ, sizes that no file has.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/arch/hf_config.h"
#include "core/common/error.h"
#include "core/common/rng.h"
#include "quant/checkpoint.h"
#include "tests/testing/fake_tokenizer.h"

namespace crumb::testing {

/// A layer of grouped-query attention with a head_dim for its rotary embedding.
inline arch::LayerSpec random_layer(arch::GqaSpec attention, arch::MlpSpec feed_forward) {
  arch::LayerSpec layer;
  layer.rope = {attention.head_dim, 10000.0, std::vector<double>(static_cast<size_t>(attention.head_dim / 2), 1.0)};
  layer.attention = attention;
  layer.feed_forward = feed_forward;
  return layer;
}

class RandomModel : public quant::Checkpoint {
 public:
  /// Outputs of unit variance; gains of norms from 0.2 to 2.2, biases of deviation 0.3.
  explicit RandomModel(arch::DecoderSpec spec, uint64_t seed = 1) : spec_(std::move(spec)) {
    for (const auto& desc : arch::tensor_table(spec_)) {
      tensors_.push_back({desc, "F32", 4 * desc.elements(), std::nullopt});
      const Rng rng(seed, hash_name(desc.hf_name));
      const double deviation = desc.role == arch::TensorRole::linear || desc.role == arch::TensorRole::head
                                   ? 1 / std::sqrt(static_cast<double>(desc.cols()))
                                   : 0.3;
      auto& values = values_[desc.id];
      for (uint64_t i = 0; i < static_cast<uint64_t>(desc.elements()); ++i) {
        values.push_back(static_cast<float>(desc.role == arch::TensorRole::norm ? 0.2 + 2 * rng.uniform(i)
                                                                                : deviation * rng.normal(i)));
      }
    }
  }

  std::vector<float>& values(const arch::TensorId& id) { return values_.at(id); }
  nlohmann::json& config() { return config_; }
  std::vector<quant::StoredTensor>& stored() { return tensors_; }

  quant::CheckpointKind kind() const override { return quant::CheckpointKind::hf; }
  const Path& path() const override { return path_; }
  const arch::DecoderSpec& spec() const override { return spec_; }
  const std::vector<quant::StoredTensor>& tensors() const override { return tensors_; }
  void read_rows(const quant::StoredTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    const int64_t cols = tensor.desc.cols();
    const auto& values = values_.at(tensor.desc.id);
    std::copy(values.begin() + begin * cols, values.begin() + end * cols, out);
  }
  quant::QuantizedTensor read_codes(const quant::StoredTensor&, int64_t, int64_t) const override {
    CRUMB_ASSERT(false);
  }
  quant::StoredRows stored_rows(const quant::StoredTensor&) const override { CRUMB_ASSERT(false); }
  void release_rows(const quant::StoredTensor&, int64_t, int64_t) const override {}
  nlohmann::json hf_config() const override { return config_; }
  std::unique_ptr<tokenizer::Tokenizer> load_tokenizer() const override { return std::make_unique<FakeTokenizer>(); }
  bool has_tokenizer() const override { return true; }
  void write_companions(const Path&) const override {}
  int64_t file_bytes() const override { return stored_bytes(); }

 private:
  Path path_ = "random-model";
  arch::DecoderSpec spec_;
  std::vector<quant::StoredTensor> tensors_;
  std::map<arch::TensorId, std::vector<float>> values_;
  nlohmann::json config_ = nlohmann::json::object();
};

}  // namespace crumb::testing
