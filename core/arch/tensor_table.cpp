#include "core/arch/tensor_table.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/common/error.h"

namespace crumb::arch {
namespace {

/// The sizes that shapes are made of.
enum class Size { none, vocabulary, hidden, queries, keys, head, inner };

int64_t value_of(Size size, const DecoderSpec& spec, const LayerSpec* layer) {
  switch (size) {
    case Size::vocabulary:
      return spec.vocab_size;
    case Size::hidden:
      return spec.hidden_size;
    case Size::queries:
      return layer->gqa().heads * layer->gqa().head_dim;
    case Size::keys:
      return layer->gqa().kv_heads * layer->gqa().head_dim;
    case Size::head:
      return layer->gqa().head_dim;
    case Size::inner:
      return layer->mlp().intermediate;
    case Size::none:
      break;
  }
  CRUMB_ASSERT(false);
}

/// The keys of config.json behind a size.
std::string_view keys_of(Size size) {
  switch (size) {
    case Size::vocabulary:
      return "vocab_size";
    case Size::hidden:
      return "hidden_size";
    case Size::queries:
      return "num_attention_heads x head_dim";
    case Size::keys:
      return "num_key_value_heads x head_dim";
    case Size::head:
      return "head_dim";
    case Size::inner:
      return "intermediate_size";
    case Size::none:
      break;
  }
  CRUMB_ASSERT(false);
}

enum class Rows { plain, rotated };  // rotated: the rotary embedding turns what these rows give

struct SlotFacts {
  Slot slot;
  std::string_view hf, gguf;  // behind "model.layers.N." and "blk.N." for those of a layer
  TensorRole role;
  Size rows, cols;  // cols none: a vector
  Rows kind = Rows::plain;
};

using R = TensorRole;
using enum Size;
constexpr SlotFacts kSlots[] = {
    {Slot::embedding, "model.embed_tokens.weight", "token_embd.weight", R::embedding, vocabulary, hidden},
    {Slot::attention_norm, "input_layernorm.weight", "attn_norm.weight", R::norm, hidden, none},
    {Slot::ffn_norm, "post_attention_layernorm.weight", "ffn_norm.weight", R::norm, hidden, none},
    {Slot::q_norm, "self_attn.q_norm.weight", "attn_q_norm.weight", R::norm, head, none},
    {Slot::k_norm, "self_attn.k_norm.weight", "attn_k_norm.weight", R::norm, head, none},
    {Slot::q, "self_attn.q_proj.weight", "attn_q.weight", R::linear, queries, hidden, Rows::rotated},
    {Slot::q_bias, "self_attn.q_proj.bias", "attn_q.bias", R::bias, queries, none, Rows::rotated},
    {Slot::k, "self_attn.k_proj.weight", "attn_k.weight", R::linear, keys, hidden, Rows::rotated},
    {Slot::k_bias, "self_attn.k_proj.bias", "attn_k.bias", R::bias, keys, none, Rows::rotated},
    {Slot::v, "self_attn.v_proj.weight", "attn_v.weight", R::linear, keys, hidden},
    {Slot::v_bias, "self_attn.v_proj.bias", "attn_v.bias", R::bias, keys, none},
    {Slot::o, "self_attn.o_proj.weight", "attn_output.weight", R::linear, hidden, queries},
    {Slot::o_bias, "self_attn.o_proj.bias", "attn_output.bias", R::bias, hidden, none},
    {Slot::gate, "mlp.gate_proj.weight", "ffn_gate.weight", R::linear, inner, hidden},
    {Slot::gate_bias, "mlp.gate_proj.bias", "ffn_gate.bias", R::bias, inner, none},
    {Slot::up, "mlp.up_proj.weight", "ffn_up.weight", R::linear, inner, hidden},
    {Slot::up_bias, "mlp.up_proj.bias", "ffn_up.bias", R::bias, inner, none},
    {Slot::down, "mlp.down_proj.weight", "ffn_down.weight", R::linear, hidden, inner},
    {Slot::down_bias, "mlp.down_proj.bias", "ffn_down.bias", R::bias, hidden, none},
    {Slot::final_norm, "model.norm.weight", "output_norm.weight", R::norm, hidden, none},
    {Slot::head, "lm_head.weight", "output.weight", R::head, vocabulary, hidden},
    {Slot::rope_freqs, "", "rope_freqs.weight", R::norm, none, none},
};

/// Names of one architecture that differ from those of the table.
struct OtherName {
  Architecture architecture;
  Slot slot;
  std::string_view hf;
};
constexpr OtherName kOtherNames[] = {
    {Architecture::hunyuan_v1_dense, Slot::q_norm, "self_attn.query_layernorm.weight"},
    {Architecture::hunyuan_v1_dense, Slot::k_norm, "self_attn.key_layernorm.weight"},
};

const SlotFacts& facts_of(Slot slot) {
  const auto found = std::ranges::find(kSlots, slot, &SlotFacts::slot);
  CRUMB_ASSERT(found != std::end(kSlots));
  return *found;
}

bool is_of_a_layer(Slot slot) { return slot > Slot::embedding && slot < Slot::final_norm; }

bool has_slot(const DecoderSpec& spec, const LayerSpec* layer, Slot slot) {
  switch (slot) {
    case Slot::head:
      return !spec.tied_head;
    case Slot::rope_freqs:
      return false;
    case Slot::q_norm:
    case Slot::k_norm:
      return layer->gqa().qk_norm != QkNorm::none;
    case Slot::q_bias:
    case Slot::k_bias:
    case Slot::v_bias:
      return layer->gqa().qkv_bias;
    case Slot::o_bias:
      return layer->gqa().output_bias;
    case Slot::gate_bias:
    case Slot::up_bias:
    case Slot::down_bias:
      return layer->mlp().bias;
    default:
      return true;
  }
}

TensorDesc describe(const DecoderSpec& spec, const SlotFacts& facts, int index) {
  const LayerSpec* layer = index < 0 ? nullptr : &spec.layers[static_cast<size_t>(index)];
  TensorDesc desc;
  desc.id = {facts.slot, index};
  desc.hf_name = hf_name(spec.architecture, facts.slot, index);
  desc.role = facts.role;
  for (const Size size : {facts.rows, facts.cols}) {
    if (size != Size::none) desc.shape.push_back(value_of(size, spec, layer));
  }
  const bool is_permuted = facts.kind == Rows::rotated && gguf_architecture_name(spec.architecture) == "llama";
  desc.permuted_head_dim = is_permuted ? layer->gqa().head_dim : 0;
  desc.hf = {desc.hf_name, 0, desc.shape};
  desc.gguf = {gguf_name(facts.slot, index), 0, desc.shape};
  return desc;
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
  const auto& facts = facts_of(id.slot);
  std::string keys(keys_of(facts.rows));
  if (facts.cols != Size::none) keys += ", " + std::string(keys_of(facts.cols));
  return keys;
}

int64_t TensorDesc::gguf_row(int64_t row) const {
  return gguf.first_row + (permuted_head_dim > 0 ? gguf_row_of_hf_row(row, permuted_head_dim) : row);
}

std::vector<TensorDesc> tensor_table(const DecoderSpec& spec) {
  std::vector<TensorDesc> table;
  const auto add_all = [&](int layer, const auto& wanted) {
    const LayerSpec* of = layer < 0 ? nullptr : &spec.layers[static_cast<size_t>(layer)];
    for (const auto& facts : kSlots) {
      if (wanted(facts.slot) && has_slot(spec, of, facts.slot)) table.push_back(describe(spec, facts, layer));
    }
  };
  add_all(-1, [](Slot slot) { return slot < Slot::attention_norm; });
  for (int i = 0; i < static_cast<int>(spec.layers.size()); ++i) add_all(i, is_of_a_layer);
  add_all(-1, [](Slot slot) { return slot >= Slot::final_norm; });
  return table;
}

void check_stored_alone(const std::vector<TensorDesc>& table, StoredSlice TensorDesc::*format, std::string_view where) {
  for (const auto& desc : table) {
    const StoredSlice& slice = desc.*format;
    CRUMB_CHECK(slice.first_row == 0 && slice.shape == desc.shape,
                "{} keeps {} within {}, which holds other tensors too: Crumb reads such models, it does not write them",
                where, desc.hf_name, slice.name);
  }
}

std::optional<Slot> bias_slot(Slot linear) {
  switch (linear) {
    case Slot::q:
      return Slot::q_bias;
    case Slot::k:
      return Slot::k_bias;
    case Slot::v:
      return Slot::v_bias;
    case Slot::o:
      return Slot::o_bias;
    case Slot::gate:
      return Slot::gate_bias;
    case Slot::up:
      return Slot::up_bias;
    case Slot::down:
      return Slot::down_bias;
    default:
      return std::nullopt;
  }
}

std::string hf_name(Architecture architecture, Slot slot, int layer) {
  CRUMB_ASSERT((layer >= 0) == is_of_a_layer(slot));
  std::string_view name = facts_of(slot).hf;
  for (const auto& other : kOtherNames) {
    if (other.architecture == architecture && other.slot == slot) name = other.hf;
  }
  return (layer < 0 ? "" : layer_module(layer) + ".") + std::string(name);
}

std::string gguf_name(Slot slot, int layer) {
  CRUMB_ASSERT((layer >= 0) == is_of_a_layer(slot));
  return (layer < 0 ? "" : "blk." + std::to_string(layer) + ".") + std::string(facts_of(slot).gguf);
}

std::string layer_module(int layer) { return "model.layers." + std::to_string(layer); }

int64_t parameter_count(const DecoderSpec& spec) {
  int64_t count = 0;
  for (const auto& desc : tensor_table(spec)) count += desc.elements();
  return count;
}

int64_t hf_row_of_gguf_row(int64_t row, int64_t head_dim) {
  const int64_t in_head = row % head_dim;
  return row - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
}

int64_t gguf_row_of_hf_row(int64_t row, int64_t head_dim) {
  const int64_t in_head = row % head_dim, half = head_dim / 2;
  return row - in_head + in_head % half * 2 + in_head / half;
}

}  // namespace crumb::arch
