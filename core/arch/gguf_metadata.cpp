#include "core/arch/gguf_metadata.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/arch/rope_scaling.h"
#include "core/arch/spec_compare.h"
#include "core/common/error.h"
#include "core/common/log.h"

namespace crumb::arch {
namespace {

using formats::GgufReader;
using formats::GgufWriter;

constexpr std::string_view kHolder = "GGUF";

constexpr Architecture kReadable[] = {Architecture::llama, Architecture::qwen2, Architecture::qwen3,
                                      Architecture::hunyuan_v1_dense};

Architecture read_architecture(const GgufReader& gguf) {
  const auto name = gguf.get_string("general.architecture");
  std::string known;
  for (const auto architecture : kReadable) {
    const auto candidate = gguf_architecture_name(architecture);
    if (candidate == name) return architecture;
    known += (known.empty() ? "" : ", ") + std::string(candidate);
  }
  user_error("{}: architecture '{}' is not supported; known ones: {}", gguf.path().string(), name, known);
}

/// The keys of one architecture: get("block_count") reads "llama.block_count".
class Keys {
 public:
  Keys(const GgufReader& gguf, Architecture architecture)
      : gguf_(gguf), prefix_(std::string(gguf_architecture_name(architecture)) + ".") {}

  std::string name(const std::string& key) const { return prefix_ + key; }
  bool has(const std::string& key) const { return gguf_.find(name(key)) != nullptr; }
  int64_t size(const std::string& key) const { return checked(key, gguf_.get_int(name(key)), 1); }
  int64_t size_or(const std::string& key, int64_t fallback, int64_t least = 1) const {
    return checked(key, gguf_.get_int_or(name(key), fallback), least);
  }
  double positive(const std::string& key, double fallback) const { return has(key) ? positive(key) : fallback; }
  double positive(const std::string& key) const {
    const double value = gguf_.get_float(name(key));
    CRUMB_CHECK(std::isfinite(value) && value > 0, "{}: {} must be greater than 0, not {}", where(), name(key), value);
    return value;
  }
  /// A factor, which may be 0 for "none": then 1, as in stock llama.cpp.
  double factor(const std::string& key) const {
    return has(key) && gguf_.get_float(name(key)) != 0 ? positive(key) : 1.0;
  }
  std::string text_or(const std::string& key, const std::string& fallback) const {
    return gguf_.get_string_or(name(key), fallback);
  }
  std::string where() const { return gguf_.path().string(); }

 private:
  int64_t checked(const std::string& key, int64_t value, int64_t least) const {
    CRUMB_CHECK(value >= least && value < (int64_t{1} << 31), "{}: {} is {}, which no model has", where(), name(key),
                value);
    return value;
  }

  const GgufReader& gguf_;
  std::string prefix_;
};

GqaSpec read_gqa(const Keys& keys, Architecture architecture, int64_t hidden_size) {
  GqaSpec gqa;
  gqa.heads = keys.size("attention.head_count");
  gqa.kv_heads = keys.size_or("attention.head_count_kv", gqa.heads);
  gqa.head_dim = keys.size_or("attention.key_length", hidden_size / gqa.heads);
  CRUMB_CHECK(gqa.heads % gqa.kv_heads == 0, "{}: attention.head_count {} is not a multiple of head_count_kv {}",
              keys.where(), gqa.heads, gqa.kv_heads);
  CRUMB_CHECK(gqa.head_dim % 2 == 0, "{}: attention.key_length {} is odd", keys.where(), gqa.head_dim);
  CRUMB_CHECK(gqa.head_dim <= kMostHeadDim, "{}: attention.key_length is {}, which no model has", keys.where(),
              gqa.head_dim);
  CRUMB_CHECK(keys.size_or("attention.value_length", gqa.head_dim) == gqa.head_dim,
              "{}: values of another length than keys are not supported", keys.where());
  CRUMB_CHECK(keys.size_or("rope.dimension_count", gqa.head_dim) == gqa.head_dim,
              "{}: a rotary embedding of a part of the head is not supported", keys.where());
  if (architecture == Architecture::qwen3) gqa.qk_norm = QkNorm::before_rope;
  if (architecture == Architecture::hunyuan_v1_dense) gqa.qk_norm = QkNorm::after_rope;
  return gqa;
}

/// The metadata do not tell biases: a layer has those whose tensors are there.
void read_biases(const GgufReader& gguf, int index, LayerSpec& layer) {
  const auto has = [&](Slot slot) { return gguf.find_tensor(gguf_name(slot, index)) != nullptr; };
  std::get<GqaSpec>(layer.attention).qkv_bias = has(Slot::q_bias);
  std::get<GqaSpec>(layer.attention).output_bias = has(Slot::o_bias);
  std::get<MlpSpec>(layer.feed_forward).bias = has(Slot::gate_bias);
}

/// Linear scaling. The old key counts where the new one is absent, as in stock llama.cpp.
double read_linear_factor(const Keys& keys) {
  const std::string key = "rope.scaling.factor", old_key = "rope.scale_linear";
  if (!keys.has(key)) return keys.factor(old_key);
  if (keys.has(old_key) && keys.factor(old_key) != keys.factor(key))
    log_warning_once("{}: {} is {}, the older {} is {}: the first is used", keys.where(), keys.name(key),
                     keys.factor(key), keys.name(old_key), keys.factor(old_key));
  return keys.factor(key);
}

RopeSpec read_rope(const GgufReader& gguf, const Keys& keys, Architecture architecture, int64_t dim) {
  RopeSpec rope{dim, keys.positive("rope.freq_base", 10000.0), no_divisors(dim)};
  if (architecture == Architecture::hunyuan_v1_dense && keys.has("rope.scaling.alpha")) {
    const double alpha = keys.factor("rope.scaling.alpha");
    CRUMB_CHECK(dim > 2 || alpha == 1.0, "{}: {} needs a longer head", keys.where(), keys.name("rope.scaling.alpha"));
    if (alpha != 1.0) rope.base *= ntk_alpha_factor(alpha, dim);
  }
  const auto type = keys.text_or("rope.scaling.type", "linear");
  CRUMB_CHECK(type == "linear" || type == "none", "{}: rope scaling '{}' is not supported; known ones: none, linear",
              keys.where(), type);
  if (type == "linear") rope.divisors.assign(rope.divisors.size(), read_linear_factor(keys));
  const auto* factors = gguf.find_tensor(gguf_name(Slot::rope_freqs));
  if (factors == nullptr) return rope;
  std::vector<float> values(rope.divisors.size());
  CRUMB_CHECK(factors->readable && factors->rows() == 1 && factors->cols() == dim / 2,
              "{}: rope_freqs.weight must hold {} numbers", keys.where(), dim / 2);
  gguf.read_rows(*factors, 0, 1, values.data());
  for (size_t i = 0; i < values.size(); ++i) {
    CRUMB_CHECK(std::isfinite(values[i]) && values[i] > 0, "{}: rope_freqs.weight holds {}", keys.where(), values[i]);
    rope.divisors[i] *= static_cast<double>(values[i]);
  }
  return rope;
}

/// Which layers use attention.sliding_window: all, or those that are true in the pattern.
std::vector<bool> read_window_pattern(const GgufReader& gguf, const Keys& keys, int64_t num_layers) {
  std::vector<bool> pattern(static_cast<size_t>(num_layers), true);
  const auto* value = gguf.find(keys.name("attention.sliding_window_pattern"));
  if (value == nullptr) return pattern;
  const auto* array = std::get_if<formats::GgufArray>(&value->value);
  const auto* flags = array == nullptr ? nullptr : std::get_if<std::vector<bool>>(&array->values);
  CRUMB_CHECK(flags != nullptr && flags->size() == pattern.size(), "{}: {} must be one bool for each of the {} layers",
              keys.where(), keys.name("attention.sliding_window_pattern"), num_layers);
  return *flags;
}

// --- keys that say more than a DecoderSpec does ----------------------------------------------------------------------
//
// What stock llama.cpp does with each <arch>.* key it knows was found by giving each another value in a random model of
// each of our architectures and comparing the logits (build 11549).

/// Keys that are read here, and keys that change no logits whatever their value: facts about how the file came to be,
/// of embeddings, or of scaling methods that are refused by their type.
constexpr std::string_view kKnownKeys[] = {"vocab_size",
                                           "context_length",
                                           "embedding_length",
                                           "block_count",
                                           "feed_forward_length",
                                           "attention.head_count",
                                           "attention.head_count_kv",
                                           "attention.key_length",
                                           "attention.value_length",
                                           "attention.layer_norm_rms_epsilon",
                                           "attention.sliding_window",
                                           "attention.sliding_window_pattern",
                                           "rope.dimension_count",
                                           "rope.freq_base",
                                           "rope.scaling.type",
                                           "rope.scaling.factor",
                                           "rope.scale_linear",
                                           "rope.scaling.original_context_length",
                                           "rope.scaling.finetuned",
                                           "rope.scaling.yarn_attn_factor",
                                           "rope.scaling.yarn_beta_fast",
                                           "rope.scaling.yarn_beta_slow",
                                           "rope.scaling.yarn_ext_factor",
                                           "rope.scaling.yarn_log_multiplier",
                                           "pooling_type",
                                           "tensor_data_layout"};

/// Keys with which stock llama.cpp computes something else, or refuses the file, and the only value supported.
struct FixedKey {
  std::string_view key;
  double value;
  std::string_view meaning;
};
constexpr FixedKey kFixedKeys[] = {{"expert_count", 0, "mixture of experts"},
                                   {"nextn_predict_layers", 0, "prediction of several tokens"},
                                   {"attention.causal", 1, "attention that sees later tokens"},
                                   {"rope.scaling.attn_factor", 1, "a factor of the rotary embedding"}};

/// A number or a flag; nothing for texts and arrays.
std::optional<double> number_of(const formats::GgufValue& value) {
  return std::visit(
      [](const auto& held) -> std::optional<double> {
        if constexpr (std::is_arithmetic_v<std::decay_t<decltype(held)>>) return static_cast<double>(held);
        return std::nullopt;
      },
      value.value);
}

/// Of a key not known: 0 and false switch off, and a scale of 1 changes nothing.
bool says_nothing(std::string_view key, const formats::GgufValue& value) {
  const auto number = number_of(value);
  return number && (*number == 0 || (*number == 1 && key.ends_with("scale")));
}

void check_other_keys(const GgufReader& gguf, const Keys& keys, Architecture architecture) {
  const std::string prefix = keys.name("");
  for (const auto& [name, value] : gguf.metadata()) {
    if (!name.starts_with(prefix)) continue;
    const std::string_view key = std::string_view(name).substr(prefix.size());
    if (std::ranges::count(kKnownKeys, key) > 0) continue;
    if (key == "rope.scaling.alpha" && architecture == Architecture::hunyuan_v1_dense) continue;
    const auto* fixed = std::ranges::find(kFixedKeys, key, &FixedKey::key);
    if (fixed != std::end(kFixedKeys)) {
      CRUMB_CHECK(number_of(value) == fixed->value, "{}: {} is {}: {} is not supported", keys.where(), name,
                  value.text(), fixed->meaning);
    } else if (!says_nothing(key, value)) {
      log_warning_once("{}: {} is {}: a key that Crumb does not know for architecture {}; it is ignored", keys.where(),
                       name, value.text(), gguf_architecture_name(architecture));
    }
  }
}

/// The layer for which the metadata speak. Biases are told by their tensors.
const LayerSpec& described_layer(const DecoderSpec& spec) {
  return common_layer(spec, kHolder, {"window", "attention.qkv_bias", "attention.output_bias", "feed_forward.bias"});
}

void check_rope(const DecoderSpec& spec) {
  const auto name = gguf_architecture_name(spec.architecture);
  CRUMB_CHECK(name == "llama" || uniform_divisor(described_layer(spec).rope),
              "llama.cpp reads llama3 rope scaling for architecture llama only, not for {}", name);
}

void set_rope(const DecoderSpec& spec, const std::string& prefix, GgufWriter& writer) {
  check_rope(spec);
  const auto& rope = described_layer(spec).rope;
  writer.set_u32(prefix + "rope.dimension_count", static_cast<uint32_t>(rope.dim));
  writer.set_f32(prefix + "rope.freq_base", static_cast<float>(rope.base));
  const auto uniform = uniform_divisor(rope);
  if (uniform && *uniform != 1.0) {
    writer.set_string(prefix + "rope.scaling.type", "linear");
    writer.set_f32(prefix + "rope.scaling.factor", static_cast<float>(*uniform));
  } else if (spec.architecture == Architecture::hunyuan_v1_dense) {
    writer.set_string(prefix + "rope.scaling.type", "none");
    writer.set_f32(prefix + "rope.scaling.factor", 1.0f);
    writer.set_u32(prefix + "rope.scaling.original_context_length", static_cast<uint32_t>(spec.context_length));
  }
}

void set_windows(const DecoderSpec& spec, const std::string& prefix, GgufWriter& writer) {
  const int64_t window = common_window(spec, kHolder);
  if (window == 0) return;
  std::vector<bool> pattern;
  for (const auto& layer : spec.layers) pattern.push_back(layer.window > 0);
  writer.set_u32(prefix + "attention.sliding_window", static_cast<uint32_t>(window));
  if (pattern == std::vector<bool>(pattern.size(), true)) return;
  formats::GgufArray array{formats::GgufType::boolean, pattern};
  writer.set(prefix + "attention.sliding_window_pattern", {std::move(array)});
}

}  // namespace

DecoderSpec spec_from_gguf(const GgufReader& gguf) {
  DecoderSpec spec;
  spec.architecture = read_architecture(gguf);
  const Keys keys(gguf, spec.architecture);
  spec.hidden_size = keys.size("embedding_length");
  spec.context_length = keys.size("context_length");
  spec.rms_norm_eps = keys.positive("attention.layer_norm_rms_epsilon");
  const auto& embedding = gguf.tensor(gguf_name(Slot::embedding));
  spec.vocab_size = embedding.rows();
  CRUMB_CHECK(embedding.cols() == spec.hidden_size, "{}: token_embd.weight has rows of {}, embedding_length is {}",
              keys.where(), embedding.cols(), spec.hidden_size);
  const int64_t vocab_size = keys.size_or("vocab_size", spec.vocab_size);
  if (vocab_size != spec.vocab_size)
    log_warning_once("{}: {} is {}, but token_embd.weight has {} rows: the rows count", keys.where(),
                     keys.name("vocab_size"), vocab_size, spec.vocab_size);
  spec.tied_head = gguf.find_tensor(gguf_name(Slot::head)) == nullptr;
  check_other_keys(gguf, keys, spec.architecture);
  const int64_t num_layers = keys.size("block_count");
  CRUMB_CHECK(num_layers <= kMostLayers, "{}: block_count is {}, which no model has", keys.where(), num_layers);

  LayerSpec layer;
  const auto gqa = read_gqa(keys, spec.architecture, spec.hidden_size);
  layer.attention = gqa;
  layer.feed_forward = MlpSpec{keys.size("feed_forward_length")};
  layer.rope = read_rope(gguf, keys, spec.architecture, gqa.head_dim);
  const int64_t window = keys.size_or("attention.sliding_window", 0, 0);
  for (const bool slides : read_window_pattern(gguf, keys, num_layers)) {
    layer.window = slides ? window : 0;
    spec.layers.push_back(layer);
  }
  for (int i = 0; i < static_cast<int>(num_layers); ++i) read_biases(gguf, i, spec.layers[static_cast<size_t>(i)]);
  return spec;
}

// Which tensors stock llama.cpp creates for each architecture, found by loading files (build 11549): a file with
// another one, or one of another shape, is refused.
void check_llama_cpp_loads(const DecoderSpec& spec) {
  const auto& gqa = described_layer(spec).gqa();
  const auto name = gguf_architecture_name(spec.architecture);
  const bool is_llama = name == "llama";
  const auto has_output_bias = [](const LayerSpec& layer) { return layer.gqa().output_bias; };
  const auto has_mlp_bias = [](const LayerSpec& layer) { return layer.mlp().bias; };
  CRUMB_CHECK(is_llama || std::ranges::none_of(spec.layers, has_output_bias),
              "llama.cpp knows no bias of attention's output (o_proj.bias) in a {} model and would refuse the file; "
              "hf-bf16 holds it",
              name);
  CRUMB_CHECK(is_llama || std::ranges::none_of(spec.layers, has_mlp_bias),
              "llama.cpp knows no biases of the feed-forward network in a {} model and would refuse the file; hf-bf16 "
              "holds it",
              name);
  CRUMB_CHECK(spec.architecture != Architecture::qwen2 || gqa.heads * gqa.head_dim == spec.hidden_size,
              "llama.cpp wants {} heads of {} in a qwen2 model of {}, not of {}, and would refuse the file; hf-bf16 "
              "holds it",
              gqa.heads, spec.hidden_size / gqa.heads, spec.hidden_size, gqa.head_dim);
  check_rope(spec);
  common_window(spec, kHolder);
}

void set_gguf_metadata(const DecoderSpec& spec, GgufWriter& writer) {
  const auto& layer = described_layer(spec);
  const auto& gqa = layer.gqa();
  const std::string name(gguf_architecture_name(spec.architecture));
  const std::string prefix = name + ".";
  const auto set = [&](const std::string& key, int64_t value) {
    writer.set_u32(prefix + key, static_cast<uint32_t>(value));
  };
  writer.set_string("general.architecture", name);
  set("vocab_size", spec.vocab_size);
  set("context_length", spec.context_length);
  set("embedding_length", spec.hidden_size);
  set("block_count", spec.num_layers());
  set("feed_forward_length", layer.mlp().intermediate);
  set("attention.head_count", gqa.heads);
  set("attention.head_count_kv", gqa.kv_heads);
  set("attention.key_length", gqa.head_dim);
  set("attention.value_length", gqa.head_dim);
  writer.set_f32(prefix + "attention.layer_norm_rms_epsilon", static_cast<float>(spec.rms_norm_eps));
  set_rope(spec, prefix, writer);
  set_windows(spec, prefix, writer);
}

void check_read_back(const GgufReader& gguf, const DecoderSpec& spec) {
  constexpr double kFloat32 = 0x1p-23;  // half a unit when it was written, half when read as the shortest decimal
  auto read = spec_from_gguf(gguf);
  if (gguf_architecture_name(read.architecture) == gguf_architecture_name(spec.architecture))
    read.architecture = spec.architecture;  // llama for mistral
  const auto found = differences(read, spec, {kFloat32, kFloat32});
  if (found.empty()) return;
  run_error("read-back: {} is {} in the metadata that were written, {} in the model", found.front().field,
            found.front().first, found.front().second);
}

std::vector<float> rope_freqs(const DecoderSpec& spec) {
  const auto& rope = described_layer(spec).rope;
  if (uniform_divisor(rope)) return {};
  return {rope.divisors.begin(), rope.divisors.end()};
}

std::optional<TensorDesc> rope_freqs_tensor(const DecoderSpec& spec) {
  const auto count = static_cast<int64_t>(rope_freqs(spec).size());
  if (count == 0) return std::nullopt;
  TensorDesc desc;
  desc.id = {Slot::rope_freqs};
  desc.role = TensorRole::norm;
  desc.shape = {count};
  desc.gguf = {gguf_name(Slot::rope_freqs), 0, desc.shape};
  return desc;
}

}  // namespace crumb::arch
