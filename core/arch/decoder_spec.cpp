#include "core/arch/decoder_spec.h"

#include <numeric>
#include <utility>

#include "core/common/error.h"

namespace crumb::arch {
namespace {

struct QkNormNames {
  const char *query, *key;
};
QkNormNames qk_norm_names(Architecture architecture) {
  if (architecture == Architecture::hunyuan_v1_dense) return {"query_layernorm", "key_layernorm"};
  return {"q_norm", "k_norm"};
}

/// Collects the tensors of one layer under both names.
class LayerTable {
 public:
  LayerTable(int layer, bool permuted, std::vector<TensorDesc>& out)
      : hf_("model.layers." + std::to_string(layer) + "."),
        gguf_("blk." + std::to_string(layer) + "."),
        layer_(layer),
        permuted_(permuted),
        out_(out) {}

  void norm(const std::string& hf, const std::string& gguf, int64_t size) {
    add(hf + ".weight", gguf + ".weight", TensorRole::norm, {size}, 0);
  }
  void linear(const std::string& hf, const std::string& gguf, int64_t rows, int64_t cols, bool bias,
              int64_t permuted_head_dim = 0) {
    const int64_t head_dim = permuted_ ? permuted_head_dim : 0;
    add(hf + ".weight", gguf + ".weight", TensorRole::linear, {rows, cols}, head_dim);
    if (bias) add(hf + ".bias", gguf + ".bias", TensorRole::bias, {rows}, head_dim);
  }

 private:
  void add(const std::string& hf, const std::string& gguf, TensorRole role, std::vector<int64_t> shape,
           int64_t permuted_head_dim) {
    out_.push_back({hf_ + hf, gguf_ + gguf, role, std::move(shape), layer_, permuted_head_dim});
  }

  std::string hf_, gguf_;
  int layer_;
  bool permuted_;
  std::vector<TensorDesc>& out_;
};

void add_layer(const DecoderSpec& spec, int index, std::vector<TensorDesc>& out) {
  const auto& layer = spec.layers[static_cast<size_t>(index)];
  const auto& gqa = layer.gqa();
  const auto& mlp = layer.mlp();
  LayerTable table(index, gguf_architecture_name(spec.architecture) == "llama", out);
  table.norm("input_layernorm", "attn_norm", spec.hidden_size);
  table.norm("post_attention_layernorm", "ffn_norm", spec.hidden_size);
  if (gqa.qk_norm != QkNorm::none) {
    const auto names = qk_norm_names(spec.architecture);
    table.norm(std::string("self_attn.") + names.query, "attn_q_norm", gqa.head_dim);
    table.norm(std::string("self_attn.") + names.key, "attn_k_norm", gqa.head_dim);
  }
  const int64_t q_rows = gqa.heads * gqa.head_dim, kv_rows = gqa.kv_heads * gqa.head_dim;
  table.linear("self_attn.q_proj", "attn_q", q_rows, spec.hidden_size, gqa.qkv_bias, gqa.head_dim);
  table.linear("self_attn.k_proj", "attn_k", kv_rows, spec.hidden_size, gqa.qkv_bias, gqa.head_dim);
  table.linear("self_attn.v_proj", "attn_v", kv_rows, spec.hidden_size, gqa.qkv_bias);
  table.linear("self_attn.o_proj", "attn_output", spec.hidden_size, q_rows, gqa.output_bias);
  table.linear("mlp.gate_proj", "ffn_gate", mlp.intermediate, spec.hidden_size, mlp.bias);
  table.linear("mlp.up_proj", "ffn_up", mlp.intermediate, spec.hidden_size, mlp.bias);
  table.linear("mlp.down_proj", "ffn_down", spec.hidden_size, mlp.intermediate, mlp.bias);
}

}  // namespace

int64_t TensorDesc::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::string TensorDesc::module_name() const {
  const std::string suffix = ".weight";
  return hf_name.ends_with(suffix) ? hf_name.substr(0, hf_name.size() - suffix.size()) : hf_name;
}

std::string TensorDesc::shape_keys() const {
  const std::string queries = "num_attention_heads x head_dim", keys = "num_key_value_heads x head_dim",
                    hidden = "hidden_size", inner = "intermediate_size";
  const auto is_of = [&](std::string_view name) { return hf_name.find(name) != std::string::npos; };
  if (role == TensorRole::embedding || role == TensorRole::head) return "vocab_size, " + hidden;
  if (role == TensorRole::norm) return is_of("self_attn.") ? "head_dim" : hidden;
  const std::string rows = is_of("q_proj")                          ? queries
                           : is_of("k_proj") || is_of("v_proj")     ? keys
                           : is_of("gate_proj") || is_of("up_proj") ? inner
                                                                    : hidden;
  if (role == TensorRole::bias) return rows;
  return rows + ", " + (is_of("o_proj") ? queries : is_of("down_proj") ? inner : hidden);
}

std::vector<TensorDesc> tensor_table(const DecoderSpec& spec) {
  std::vector<TensorDesc> table;
  const std::vector<int64_t> vocabulary{spec.vocab_size, spec.hidden_size};
  table.push_back({"model.embed_tokens.weight", "token_embd.weight", TensorRole::embedding, vocabulary});
  for (int i = 0; i < static_cast<int>(spec.layers.size()); ++i) add_layer(spec, i, table);
  table.push_back({"model.norm.weight", "output_norm.weight", TensorRole::norm, {spec.hidden_size}});
  if (!spec.tied_head) table.push_back({"lm_head.weight", "output.weight", TensorRole::head, vocabulary});
  return table;
}

int64_t parameter_count(const DecoderSpec& spec) {
  int64_t count = 0;
  for (const auto& desc : tensor_table(spec)) count += desc.elements();
  return count;
}

int64_t hf_row_of_gguf_row(int64_t row, int64_t head_dim) {
  const int64_t in_head = row % head_dim;
  return row - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
}

std::string_view architecture_name(Architecture architecture) {
  switch (architecture) {
    case Architecture::llama:
      return "llama";
    case Architecture::mistral:
      return "mistral";
    case Architecture::qwen2:
      return "qwen2";
    case Architecture::qwen3:
      return "qwen3";
    case Architecture::hunyuan_v1_dense:
      return "hunyuan_v1_dense";
  }
  CRUMB_ASSERT(false);
}

std::string_view gguf_architecture_name(Architecture architecture) {
  switch (architecture) {
    case Architecture::mistral:
      return "llama";  // GGUF has no architecture of its own for it
    case Architecture::hunyuan_v1_dense:
      return "hunyuan-dense";
    default:
      return architecture_name(architecture);
  }
}

}  // namespace crumb::arch
