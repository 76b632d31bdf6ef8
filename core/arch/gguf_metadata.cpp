#include "core/arch/gguf_metadata.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/arch/rope_scaling.h"
#include "core/common/error.h"

namespace crumb::arch {
namespace {

using formats::GgufReader;
using formats::GgufWriter;

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
  double positive(const std::string& key, double fallback) const {
    const double value = gguf_.get_float_or(name(key), fallback);
    CRUMB_CHECK(std::isfinite(value) && value > 0, "{}: {} must be greater than 0, not {}", where(), name(key), value);
    return value;
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

GqaSpec read_gqa(const GgufReader& gguf, const Keys& keys, Architecture architecture, int64_t hidden_size) {
  GqaSpec gqa;
  gqa.heads = keys.size("attention.head_count");
  gqa.kv_heads = keys.size_or("attention.head_count_kv", gqa.heads);
  gqa.head_dim = keys.size_or("attention.key_length", hidden_size / gqa.heads);
  CRUMB_CHECK(gqa.heads % gqa.kv_heads == 0, "{}: attention.head_count {} is not a multiple of head_count_kv {}",
              keys.where(), gqa.heads, gqa.kv_heads);
  CRUMB_CHECK(gqa.head_dim % 2 == 0, "{}: attention.key_length {} is odd", keys.where(), gqa.head_dim);
  CRUMB_CHECK(keys.size_or("attention.value_length", gqa.head_dim) == gqa.head_dim,
              "{}: values of another length than keys are not supported", keys.where());
  CRUMB_CHECK(keys.size_or("rope.dimension_count", gqa.head_dim) == gqa.head_dim,
              "{}: a rotary embedding of a part of the head is not supported", keys.where());
  gqa.qkv_bias = gguf.find_tensor("blk.0.attn_q.bias") != nullptr;
  gqa.output_bias = gguf.find_tensor("blk.0.attn_output.bias") != nullptr;
  if (architecture == Architecture::qwen3) gqa.qk_norm = QkNorm::before_rope;
  if (architecture == Architecture::hunyuan_v1_dense) gqa.qk_norm = QkNorm::after_rope;
  return gqa;
}

RopeSpec read_rope(const GgufReader& gguf, const Keys& keys, int64_t dim) {
  RopeSpec rope{dim, keys.positive("rope.freq_base", 10000.0), no_divisors(dim)};
  const auto type = keys.text_or("rope.scaling.type", "linear");
  CRUMB_CHECK(type == "linear" || type == "none", "{}: rope scaling '{}' is not supported; known ones: none, linear",
              keys.where(), type);
  if (type == "linear") rope.divisors.assign(rope.divisors.size(), keys.positive("rope.scaling.factor", 1.0));
  const auto* factors = gguf.find_tensor("rope_freqs.weight");
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

void set_rope(const DecoderSpec& spec, const std::string& prefix, GgufWriter& writer) {
  const auto& rope = spec.layers.front().rope;
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
  CRUMB_CHECK(uniform || gguf_architecture_name(spec.architecture) == "llama",
              "llama.cpp reads llama3 rope scaling for architecture llama only, not for {}",
              gguf_architecture_name(spec.architecture));
}

void set_windows(const DecoderSpec& spec, const std::string& prefix, GgufWriter& writer) {
  int64_t window = 0;
  std::vector<bool> pattern;
  for (const auto& layer : spec.layers) {
    CRUMB_CHECK(window == 0 || layer.window == 0 || layer.window == window,
                "GGUF holds one sliding window; this model has {} and {}", window, layer.window);
    window = std::max(window, layer.window);
    pattern.push_back(layer.window > 0);
  }
  if (window == 0) return;
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
  spec.rms_norm_eps = keys.positive("attention.layer_norm_rms_epsilon", 1e-5);
  const auto& embedding = gguf.tensor("token_embd.weight");
  spec.vocab_size = embedding.rows();
  CRUMB_CHECK(embedding.cols() == spec.hidden_size, "{}: token_embd.weight has rows of {}, embedding_length is {}",
              keys.where(), embedding.cols(), spec.hidden_size);
  spec.tied_head = gguf.find_tensor("output.weight") == nullptr;
  CRUMB_CHECK(keys.size_or("expert_count", 0, 0) == 0, "{}: mixture of experts is not supported", keys.where());
  const int64_t num_layers = keys.size("block_count");
  CRUMB_CHECK(num_layers <= 4096, "{}: block_count is {}, which no model has", keys.where(), num_layers);

  LayerSpec layer;
  const auto gqa = read_gqa(gguf, keys, spec.architecture, spec.hidden_size);
  layer.attention = gqa;
  layer.feed_forward = MlpSpec{keys.size("feed_forward_length"), gguf.find_tensor("blk.0.ffn_gate.bias") != nullptr};
  layer.rope = read_rope(gguf, keys, gqa.head_dim);
  const int64_t window = keys.size_or("attention.sliding_window", 0, 0);
  for (const bool slides : read_window_pattern(gguf, keys, num_layers)) {
    layer.window = slides ? window : 0;
    spec.layers.push_back(layer);
  }
  return spec;
}

void set_gguf_metadata(const DecoderSpec& spec, GgufWriter& writer) {
  CRUMB_ASSERT(!spec.layers.empty());
  const auto& gqa = spec.layers.front().gqa();
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
  set("feed_forward_length", spec.layers.front().mlp().intermediate);
  set("attention.head_count", gqa.heads);
  set("attention.head_count_kv", gqa.kv_heads);
  set("attention.key_length", gqa.head_dim);
  set("attention.value_length", gqa.head_dim);
  writer.set_f32(prefix + "attention.layer_norm_rms_epsilon", static_cast<float>(spec.rms_norm_eps));
  set_rope(spec, prefix, writer);
  set_windows(spec, prefix, writer);
}

std::vector<float> rope_freqs(const DecoderSpec& spec) {
  const auto& rope = spec.layers.front().rope;
  if (uniform_divisor(rope)) return {};
  return {rope.divisors.begin(), rope.divisors.end()};
}

}  // namespace crumb::arch
