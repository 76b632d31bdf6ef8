// Models and comparisons shared by the tests of model/ and distill/.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "core/arch/tensor_table.h"
#include "model/decoder.h"
#include "quant/checkpoint.h"
#include "tests/testing/testing.h"

namespace crumb::testing {

/// A llama-like spec: grouped heads, everything a multiple of nothing in particular.
inline arch::DecoderSpec small_spec(int64_t layers = 2, int64_t vocab = 61, int64_t hidden = 24) {
  arch::DecoderSpec spec;
  spec.vocab_size = vocab;
  spec.hidden_size = hidden;
  spec.context_length = 64;
  arch::LayerSpec layer;
  layer.attention = arch::GqaSpec{.heads = 4, .kv_heads = 2, .head_dim = 6};
  layer.feed_forward = arch::MlpSpec{.intermediate = 20};
  layer.rope = {.dim = 6, .base = 10000.0, .divisors = {1, 1, 1}};
  spec.layers.assign(static_cast<size_t>(layers), layer);
  return spec;
}

/// Weights large enough that every part shows in the output.
inline model::TensorSource lively_source(uint64_t seed) {
  return [seed](const arch::TensorDesc& desc) {
    torch::manual_seed(seed + std::hash<std::string>{}(desc.hf_name) % 100000);
    if (desc.role == arch::TensorRole::norm) return 1.0 + 0.3 * torch::randn(desc.shape);
    if (desc.role == arch::TensorRole::bias) return 0.3 * torch::randn(desc.shape);
    return torch::randn(desc.shape) * (1.5 / std::sqrt(static_cast<double>(desc.cols())));
  };
}

inline std::shared_ptr<model::Decoder> load_decoder(const fs::path& folder) {
  const auto checkpoint = quant::open_checkpoint(folder);
  return std::make_shared<model::Decoder>(checkpoint->spec(), model::checkpoint_source(*checkpoint));
}

inline torch::Tensor random_ids(int64_t batch, int64_t tokens, int64_t vocab, uint64_t seed = 7) {
  torch::manual_seed(seed);
  return torch::randint(vocab, {batch, tokens}, torch::kInt64);
}

inline torch::Tensor all_logits(model::Decoder& decoder, const torch::Tensor& ids) {
  return torch::matmul(decoder.forward(ids).final_hidden, decoder.head_weight().t());
}

/// Largest |a - b| divided by the range of b.
inline double share_of_range(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a - b).abs().max() / (b.max() - b.min())).item<double>();
}

/// Norm of a - b divided by that of b.
inline double relative_distance(const torch::Tensor& a, const torch::Tensor& b) {
  const auto b64 = b.to(torch::kFloat64);
  return ((a.to(torch::kFloat64) - b64).norm() / b64.norm().clamp_min(1e-30)).item<double>();
}

}  // namespace crumb::testing
