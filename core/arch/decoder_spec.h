// What a decoder-only transformer is, as plain data. The trainable model, the runtime and both file formats are driven
// by it; a new architecture is a mapping to a DecoderSpec (hf_config.h, gguf_metadata.h).
//
// Every supported block is   x += o(attention(norm(x)));  x += down(silu(gate(norm(x))) * up(norm(x)))   with RMSNorm
// x * rsqrt(mean(x^2) + eps) * w, half-split rotary embedding (pairs i and i + dim/2) and attention scale
// head_dim^-0.5.
#pragma once

#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

namespace crumb::arch {

/// What the readers of configurations take at most. No model is near; a spec holds numbers for each layer and half
/// head.
inline constexpr int64_t kMostLayers = 4096, kMostHeadDim = 32768;

enum class Architecture { llama, mistral, qwen2, qwen3, hunyuan_v1_dense };

/// The rotary embedding of a layer: angle of pair i at position p is p * base^(-2i/dim) / divisors[i]. Scaling methods
/// (llama3) are in the divisors; a changed base (Hunyuan's dynamic alpha) is in base.
struct RopeSpec {
  int64_t dim = 0;
  double base = 10000.0;
  std::vector<double> divisors;  // dim / 2, all 1 without scaling
  bool operator==(const RopeSpec&) const = default;
};

enum class QkNorm { none, before_rope, after_rope };

/// Grouped-query attention.
struct GqaSpec {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  bool qkv_bias = false, output_bias = false;
  QkNorm qk_norm = QkNorm::none;  // RMSNorm over head_dim, weights shared by the heads
};

/// Gated feed-forward network with SiLU.
struct MlpSpec {
  int64_t intermediate = 0;
  bool bias = false;
};

struct LayerSpec {
  std::variant<GqaSpec> attention;     // later also MLA
  std::variant<MlpSpec> feed_forward;  // later also mixture of experts
  RopeSpec rope;
  int64_t window = 0;  // keys a query sees, itself included; 0: all before it

  const GqaSpec& gqa() const { return std::get<GqaSpec>(attention); }
  const MlpSpec& mlp() const { return std::get<MlpSpec>(feed_forward); }
};

struct DecoderSpec {
  Architecture architecture = Architecture::llama;
  int64_t vocab_size = 0, hidden_size = 0, context_length = 0;
  double rms_norm_eps = 1e-5;
  bool tied_head = false;
  std::vector<LayerSpec> layers;

  int64_t num_layers() const { return static_cast<int64_t>(layers.size()); }
};

std::string_view architecture_name(Architecture architecture);  // HF model_type
std::string_view gguf_architecture_name(
    Architecture architecture);  // "llama" for llama and mistral, "hunyuan-dense", ...

}  // namespace crumb::arch
