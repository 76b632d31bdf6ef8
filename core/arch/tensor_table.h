// The tensors of a model: what each is for, its shape, and where a file of either format keeps it. A tensor is found by
// its slot, never by its name.
//
// A new tensor is a value of Slot and a line of kSlots in tensor_table.cpp: names, role, the sizes its shape is made
// of; has_slot() there says which layers have it. Latent attention would add q_a, q_b, kv_a, kv_b and their norms, a
// mixture of experts a router, with its gate, up and down once for each `expert`. Where a file keeps several tensors in
// one, their StoredSlices say so.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/arch/decoder_spec.h"

namespace crumb::arch {

/// What a tensor is for; decides how it may be quantized, trained and stored.
enum class TensorRole { embedding, head, linear, norm, bias };
/// Norms and biases: vectors, stored and trained otherwise than matrices.
inline bool is_small(TensorRole role) { return role == TensorRole::norm || role == TensorRole::bias; }

/// Which tensor of the model or of a layer, in the order of tensor_table().
enum class Slot {
  embedding,
  // of a layer
  attention_norm,
  ffn_norm,
  q_norm,
  k_norm,
  q,
  q_bias,
  k,
  k_bias,
  v,
  v_bias,
  o,
  o_bias,
  gate,
  gate_bias,
  up,
  up_bias,
  down,
  down_bias,
  // of the model
  final_norm,
  head,
  rope_freqs,  // GGUF's copy of RopeSpec::divisors: in no table, see gguf_metadata.h
};

struct TensorId {
  Slot slot = Slot::embedding;
  int layer = -1;   // -1: outside the layers
  int expert = -1;  // -1: not of an expert
  auto operator<=>(const TensorId&) const = default;
};

/// Where a file keeps a tensor: as a stored tensor of its own, or as rows of one that others share (q, k and v as
/// qkv_proj, the matrices of all experts as ffn_gate_exps).
struct StoredSlice {
  std::string name;            // "model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight"
  int64_t first_row = 0;       // of the stored tensor; a vector's rows are its elements
  std::vector<int64_t> shape;  // of the whole stored tensor: [rows, cols], [experts, rows, cols] or [elements]
};

struct TensorDesc {
  TensorId id;
  std::string hf_name;  // what it is called everywhere: its name in HF's files, where it has one of its own
  TensorRole role = TensorRole::linear;
  std::vector<int64_t> shape;     // [rows, cols] or [cols]
  int64_t permuted_head_dim = 0;  // > 0: GGUF holds the rows permuted per head of this size (q and k of arch "llama")
  StoredSlice hf, gguf;

  int64_t elements() const;
  int64_t rows() const { return shape.size() == 2 ? shape[0] : 1; }
  int64_t cols() const { return shape.back(); }
  /// hf_name without ".weight": the name of the module, as exclude patterns and quantization_config see it.
  std::string module_name() const;
  /// The keys of config.json that its shape comes from: "num_attention_heads x head_dim, hidden_size".
  std::string shape_keys() const;
  /// Row of GGUF's stored tensor that holds HF's row `row` of this one. Of a vector: elements for rows.
  int64_t gguf_row(int64_t row) const;
};

/// Every tensor of the model, in the order: embedding, layers (norms, attention, feed-forward), final norm, head
/// (absent when tied). Every architecture known today stores each alone.
std::vector<TensorDesc> tensor_table(const DecoderSpec& spec);

/// UserError naming the first tensor that `format` (&TensorDesc::hf or gguf, "config.json" or "GGUF" in the message)
/// keeps within a larger one: writers write tensors one by one.
void check_stored_alone(const std::vector<TensorDesc>& table, StoredSlice TensorDesc::*format, std::string_view where);

/// The slot of the bias that is added to this linear's output; nothing for tensors without one.
std::optional<Slot> bias_slot(Slot linear);
std::string hf_name(Architecture architecture, Slot slot, int layer = -1);
/// The same for every architecture.
std::string gguf_name(Slot slot, int layer = -1);
/// "model.layers.3": what the names of a layer's modules begin with.
std::string layer_module(int layer);

int64_t parameter_count(const DecoderSpec& spec);

/// Row of the HF matrix that GGUF's row `row` holds, for a tensor with permuted_head_dim = h: head*h + 2i + t  <-
/// head*h + t*h/2 + i. And the inverse.
int64_t hf_row_of_gguf_row(int64_t row, int64_t head_dim);
int64_t gguf_row_of_hf_row(int64_t row, int64_t head_dim);

}  // namespace crumb::arch
