#include "core/arch/hf_config.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "core/arch/rope_scaling.h"
#include "core/arch/spec_compare.h"
#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/log.h"

namespace crumb::arch {
namespace {

using nlohmann::json;

constexpr std::string_view kHolder = "config.json";
constexpr int64_t kLargest = int64_t{1} << 31;  // of any one size; keeps products of two inside 64 bits

/// What every size of a model is held to.
class Config : public JsonObject {
 public:
  using JsonObject::JsonObject;
  explicit Config(const JsonObject& object) : JsonObject(object) {}

  int64_t size(const char* key, std::optional<int64_t> fallback = std::nullopt, int64_t least = 1) const {
    if (fallback && !has(key)) return *fallback;
    const auto result = get<int64_t>(key);
    CRUMB_CHECK(result >= least && result < kLargest, "{}: {} is {}, which no model has", where(), key, result);
    return result;
  }
  double number(const char* key, std::optional<double> fallback = std::nullopt) const {
    return get<double>(key, fallback);
  }
  double positive(const char* key, std::optional<double> fallback = std::nullopt) const {
    const double result = number(key, fallback);
    CRUMB_CHECK(result > 0, "{}: {} must be greater than 0, not {}", where(), key, result);
    return result;
  }
};

/// What transformers assumes when a key is absent.
struct Defaults {
  Architecture architecture;
  std::optional<int64_t> kv_heads;  // nothing: as many as heads
  std::optional<int64_t> head_dim;  // nothing: hidden_size / heads
  double rms_norm_eps;
};
constexpr Defaults kDefaults[] = {
    {Architecture::llama, std::nullopt, std::nullopt, 1e-6},
    {Architecture::mistral, 8, std::nullopt, 1e-6},
    {Architecture::qwen2, 32, std::nullopt, 1e-6},
    {Architecture::qwen3, 32, 128, 1e-6},
    {Architecture::hunyuan_v1_dense, std::nullopt, std::nullopt, 1e-5},
};

const Defaults& find_defaults(const Config& config) {
  const auto model_type = config.text("model_type", "");
  std::string known;
  for (const auto& defaults : kDefaults) {
    const auto name = architecture_name(defaults.architecture);
    if (name == model_type) return defaults;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  CRUMB_CHECK(!model_type.empty(), "{}: model_type is missing; known ones: {}", config.where(), known);
  user_error("{}: model_type '{}' is not supported; known ones: {}", config.where(), model_type, known);
}

/// Options that change the computation and that no supported model uses.
void refuse_unsupported(const Config& config) {
  const auto activation = config.text("hidden_act", "silu");
  CRUMB_CHECK(activation == "silu" || activation == "swish", "{}: hidden_act '{}' is not supported; only silu",
              config.where(), activation);
  CRUMB_CHECK(config.number("partial_rotary_factor", 1.0) == 1.0,
              "{}: partial_rotary_factor other than 1 is not supported", config.where());
  CRUMB_CHECK(!config.flag("use_cla", false), "{}: use_cla (attention shared across layers) is not supported",
              config.where());
  CRUMB_CHECK(config.flag("use_qk_norm", true), "{}: use_qk_norm: false is not supported", config.where());
  const json* experts = config.find("num_experts");
  CRUMB_CHECK(experts == nullptr || *experts == 0 || *experts == 1, "{}: mixture of experts is not supported",
              config.where());
  CRUMB_CHECK(config.flag("is_causal", true),
              "{}: is_causal: false (attention that sees later tokens) is not supported", config.where());
  const json* by_layer = config.find("per_layer_config");
  CRUMB_CHECK(by_layer == nullptr || by_layer->empty(), "{}: per_layer_config is not supported", config.where());
}

/// Options of other architectures, with the value that changes nothing. transformers' classes of ours do not read them
/// either, but a model that was made with one computes something else.
struct ForeignOption {
  const char* key;
  double neutral;
};
constexpr ForeignOption kForeignOptions[] = {{"embedding_multiplier", 1},
                                             {"attention_multiplier", 1},
                                             {"residual_multiplier", 1},
                                             {"logits_scaling", 1},
                                             {"logit_scale", 1},
                                             {"scale_emb", 1},
                                             {"scale_depth", 1},
                                             {"query_pre_attn_scalar", 0},
                                             {"attn_logit_softcapping", 0},
                                             {"final_logit_softcapping", 0},
                                             {"clip_qkv", 0},
                                             {"attention_chunk_size", 0},
                                             {"num_local_experts", 0},
                                             {"use_parallel_residual", 0},
                                             {"parallel_attn", 0},
                                             {"alibi", 0}};

void warn_ignored(const Config& config, Architecture architecture, const std::string& key, const json& value) {
  log_warning_once("{}: {} is {}, which a {} model does not have: it is ignored, as by transformers", config.where(),
                   key, value.dump(), architecture_name(architecture));
}

void warn_about_foreign_options(const Config& config, Architecture architecture) {
  for (const auto& option : kForeignOptions) {
    const json* value = config.find(option.key);
    if (value == nullptr || *value == option.neutral || *value == false) continue;
    warn_ignored(config, architecture, option.key, *value);
  }
  const bool has_windows = architecture != Architecture::llama && architecture != Architecture::hunyuan_v1_dense;
  const json* window = config.find("sliding_window");
  if (!has_windows && window != nullptr && *window != 0) warn_ignored(config, architecture, "sliding_window", *window);
}

/// One fact in two places, of which transformers takes the first.
void warn_if_different(const Config& first, const Config& second, const char* key, const char* second_key) {
  const json *a = first.find(key), *b = second.find(second_key);
  if (a == nullptr || b == nullptr || *a == *b) return;
  const bool same_place = first.where() == second.where();
  log_warning_once("{}: {} is {}, but {}{} is {}: the first is used, as by transformers", first.where(), key, a->dump(),
                   same_place ? "" : second.where() + ": ", second_key, b->dump());
}

Llama3Scaling read_llama3(const Config& rope, const Config& config) {
  Llama3Scaling scaling;
  scaling.factor = rope.positive("factor");
  scaling.low_freq_factor = rope.positive("low_freq_factor");
  scaling.high_freq_factor = rope.positive("high_freq_factor");
  CRUMB_CHECK(scaling.high_freq_factor > scaling.low_freq_factor,
              "{}: high_freq_factor must be greater than low_freq_factor", rope.where());
  // The key at the top wins in transformers, though it is the older place.
  const char* key = "original_max_position_embeddings";
  warn_if_different(config, rope, key, key);
  scaling.original_context_length =
      config.positive(key, rope.positive(key, config.positive("max_position_embeddings")));
  return scaling;
}

/// `rope`: the object rope_parameters or rope_scaling; rope_theta stands in it or, in the older style, beside it.
RopeSpec scaled_rope(const Config& rope, const Config& config, Architecture architecture, int64_t dim) {
  warn_if_different(rope, config, "rope_theta", "rope_theta");
  warn_if_different(rope, rope, "rope_type", "type");
  RopeSpec spec{dim, rope.positive("rope_theta", config.positive("rope_theta", 10000.0)), no_divisors(dim)};
  CRUMB_CHECK(rope.number("partial_rotary_factor", 1.0) == 1.0,
              "{}: partial_rotary_factor other than 1 is not supported", rope.where());
  const auto type = rope.text("rope_type", rope.text("type", "default"));
  if (type == "llama3") {
    spec.divisors = llama3_divisors(read_llama3(rope, config), dim, spec.base);
  } else if (type == "linear") {
    spec.divisors.assign(spec.divisors.size(), rope.positive("factor"));
  } else if (type == "dynamic") {
    // With alpha (Hunyuan) the base is changed for good; without, only beyond the context length, where no text goes.
    const double alpha = rope.number("alpha", 0.0);
    CRUMB_CHECK(alpha == 0.0 || (alpha > 0.0 && dim > 2), "{}: alpha must be greater than 0", rope.where());
    if (architecture == Architecture::hunyuan_v1_dense) {
      if (alpha > 0.0) spec.base *= ntk_alpha_factor(alpha, dim);
    } else if (alpha > 0.0) {
      warn_ignored(rope, architecture, "alpha", alpha);
    }
    CRUMB_CHECK(std::isfinite(spec.base) && spec.base > 0.0, "{}: alpha is {}, which no model has", rope.where(),
                alpha);
  } else {
    CRUMB_CHECK(type == "default", "{}: rope type '{}' is not supported; known ones: default, linear, llama3, dynamic",
                rope.where(), type);
  }
  return spec;
}

RopeSpec read_rope(const Config& config, Architecture architecture, int64_t dim) {
  const auto says = [&](const char* key) { return config.has(key) && !config.find(key)->empty(); };
  if (says("rope_scaling")) warn_if_different(config, config, "rope_scaling", "rope_parameters");
  const Config parameters(config.inner(says("rope_scaling") ? "rope_scaling" : "rope_parameters"));
  CRUMB_CHECK(!parameters.has("full_attention") && !parameters.has("sliding_attention"),
              "{}: one rotary embedding per layer type is not supported", parameters.where());
  return scaled_rope(parameters, config, architecture, dim);
}

GqaSpec read_gqa(const Config& config, const Defaults& defaults, int64_t hidden_size) {
  GqaSpec gqa;
  const auto architecture = defaults.architecture;
  gqa.heads = config.size("num_attention_heads");
  // A key that is there as null means "as many as heads" in every class.
  const bool absent = !config.names("num_key_value_heads");
  gqa.kv_heads = config.size("num_key_value_heads", absent ? defaults.kv_heads.value_or(gqa.heads) : gqa.heads);
  warn_if_different(config, config, "head_dim", "attention_head_dim");
  gqa.head_dim = config.size("head_dim", config.size("attention_head_dim", defaults.head_dim.value_or(0), 0), 0);
  CRUMB_CHECK(gqa.head_dim > 0 || !config.has("head_dim"), "{}: head_dim is 0, which no model has", config.where());
  if (gqa.head_dim == 0) {
    CRUMB_CHECK(hidden_size % gqa.heads == 0, "{}: hidden_size {} is not a multiple of num_attention_heads {}",
                config.where(), hidden_size, gqa.heads);
    gqa.head_dim = hidden_size / gqa.heads;
  }
  CRUMB_CHECK(gqa.heads % gqa.kv_heads == 0, "{}: num_attention_heads {} is not a multiple of num_key_value_heads {}",
              config.where(), gqa.heads, gqa.kv_heads);
  CRUMB_CHECK(gqa.head_dim % 2 == 0, "{}: head_dim {} is odd", config.where(), gqa.head_dim);
  CRUMB_CHECK(gqa.head_dim <= kMostHeadDim, "{}: head_dim is {}, which no model has", config.where(), gqa.head_dim);
  CRUMB_CHECK(gqa.heads * gqa.head_dim < kLargest, "{}: {} heads of {} are too many", config.where(), gqa.heads,
              gqa.head_dim);
  const bool bias_is_option = architecture == Architecture::llama || architecture == Architecture::qwen3 ||
                              architecture == Architecture::hunyuan_v1_dense;
  gqa.output_bias = bias_is_option && config.flag("attention_bias", false);
  gqa.qkv_bias = gqa.output_bias || architecture == Architecture::qwen2;
  if (architecture == Architecture::qwen3) gqa.qk_norm = QkNorm::before_rope;
  if (architecture == Architecture::hunyuan_v1_dense) gqa.qk_norm = QkNorm::after_rope;
  return gqa;
}

std::vector<std::string> read_layer_types(const Config& config, int64_t num_layers) {
  const json* types = config.find("layer_types");
  if (types == nullptr) return {};
  CRUMB_CHECK(types->is_array() && static_cast<int64_t>(types->size()) == num_layers,
              "{}: layer_types must list one type for each of the {} layers", config.where(), num_layers);
  std::vector<std::string> names;
  for (const auto& type : *types) {
    const auto name = type.is_string() ? type.get<std::string>() : json_excerpt(type);
    CRUMB_CHECK(name == "full_attention" || name == "sliding_attention",
                "{}: layer type {} is not supported; known ones: full_attention, sliding_attention", config.where(),
                name);
    names.push_back(name);
  }
  return names;
}

/// The window of each layer; 0: all keys. Llama and Hunyuan have none, Mistral one for all layers, Qwen one above
/// max_window_layers or where layer_types says so.
std::vector<int64_t> read_windows(const Config& config, Architecture architecture, int64_t num_layers) {
  std::vector<int64_t> windows(static_cast<size_t>(num_layers), 0);
  const bool qwen = architecture == Architecture::qwen2 || architecture == Architecture::qwen3;
  if (architecture != Architecture::mistral && !qwen) return windows;
  if (qwen && !config.flag("use_sliding_window", false)) {
    const auto types = read_layer_types(config, num_layers);
    CRUMB_CHECK(std::ranges::count(types, std::string("sliding_attention")) == 0,
                "{}: layer_types has layers of sliding_attention, but use_sliding_window is not true", config.where());
    return windows;
  }
  // transformers' classes assume 4096 where the key is not there at all; null means none.
  const int64_t window = config.names("sliding_window") ? config.size("sliding_window", 0, 0) : 4096;
  const auto types = read_layer_types(config, num_layers);
  const int64_t first = qwen ? config.size("max_window_layers", 28, 0) : 0;
  for (int64_t i = 0; i < num_layers; ++i) {
    const auto at = static_cast<size_t>(i);
    const bool slides = types.empty() ? i >= first : types[at] == "sliding_attention";
    if (slides) windows[at] = window;
  }
  return windows;
}

const char* class_name(Architecture architecture) {
  switch (architecture) {
    case Architecture::llama:
      return "LlamaForCausalLM";
    case Architecture::mistral:
      return "MistralForCausalLM";
    case Architecture::qwen2:
      return "Qwen2ForCausalLM";
    case Architecture::qwen3:
      return "Qwen3ForCausalLM";
    case Architecture::hunyuan_v1_dense:
      return "HunYuanDenseV1ForCausalLM";
  }
  CRUMB_ASSERT(false);
}

void write_rope(const RopeSpec& rope, json& config) {
  config["rope_theta"] = rope.base;
  const auto uniform = uniform_divisor(rope);
  if (uniform && *uniform == 1.0) return;
  if (uniform) {
    config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", *uniform}};
    return;
  }
  const auto scaling = find_llama3_scaling(rope);
  CRUMB_CHECK(scaling, "config.json has no way to say this model's rotary divisors");
  config["rope_scaling"] = {
      {"rope_type", "llama3"},
      {"factor", scaling->factor},
      {"low_freq_factor", scaling->low_freq_factor},
      {"high_freq_factor", scaling->high_freq_factor},
      {"original_max_position_embeddings", static_cast<int64_t>(scaling->original_context_length)}};
}

bool has_window(const LayerSpec& layer) { return layer.window > 0; }

/// One switch stands for all biases of attention (Llama, Qwen3, Hunyuan), or none: Qwen2 always has those of q, k and
/// v, Mistral never has any. Llama alone has a switch for the feed-forward network.
void refuse_other_biases(Architecture architecture, const LayerSpec& layer) {
  const auto& gqa = layer.gqa();
  const bool qwen2 = architecture == Architecture::qwen2, mistral = architecture == Architecture::mistral;
  const bool fits = qwen2     ? gqa.qkv_bias && !gqa.output_bias
                    : mistral ? !gqa.qkv_bias && !gqa.output_bias
                              : gqa.qkv_bias == gqa.output_bias;
  CRUMB_CHECK(fits,
              "config.json has no way to say that a {} model has biases of q, k, v: {}, of the attention's output: {}",
              architecture_name(architecture), gqa.qkv_bias ? "yes" : "no", gqa.output_bias ? "yes" : "no");
  CRUMB_CHECK(!layer.mlp().bias || architecture == Architecture::llama,
              "config.json has no way to say that a {} model has biases in its feed-forward network",
              architecture_name(architecture));
}

/// Mistral says one window for all layers, or lists the layers' types as Qwen does: transformers' AutoModel takes such
/// a model for its Ministral, which is Mistral with mixed layers.
void write_windows(const DecoderSpec& spec, Architecture architecture, json& config) {
  const int64_t window = common_window(spec, kHolder);
  json types = json::array();
  for (const auto& layer : spec.layers) types.push_back(has_window(layer) ? "sliding_attention" : "full_attention");
  if (architecture == Architecture::mistral) {
    config["sliding_window"] = window > 0 ? json(window) : json(nullptr);
    const bool mixed = window > 0 && !std::all_of(spec.layers.begin(), spec.layers.end(), has_window);
    if (mixed) config["layer_types"] = types;
  } else if (architecture == Architecture::llama || architecture == Architecture::hunyuan_v1_dense) {
    CRUMB_CHECK(window == 0, "config.json has no way to say that a {} model has a sliding window",
                architecture_name(architecture));
  } else if (window > 0) {
    config["use_sliding_window"] = true;
    config["sliding_window"] = window;
    config["layer_types"] = types;
    const auto first = std::find_if(spec.layers.begin(), spec.layers.end(), has_window);
    config["max_window_layers"] = first - spec.layers.begin();
  } else {
    config["use_sliding_window"] = false;
  }
}

}  // namespace

DecoderSpec spec_from_hf_config(const json& object, const std::string& where) {
  const Config config(object, where);
  const auto& defaults = find_defaults(config);
  refuse_unsupported(config);
  warn_about_foreign_options(config, defaults.architecture);
  warn_if_different(config, config, "dtype", "torch_dtype");
  DecoderSpec spec;
  spec.architecture = defaults.architecture;
  spec.vocab_size = config.size("vocab_size");
  spec.hidden_size = config.size("hidden_size");
  spec.context_length = config.size("max_position_embeddings");
  spec.rms_norm_eps = config.positive("rms_norm_eps", defaults.rms_norm_eps);
  CRUMB_CHECK(spec.rms_norm_eps < 1.0, "{}: rms_norm_eps is {}, which no model has", where, spec.rms_norm_eps);
  spec.tied_head = config.flag("tie_word_embeddings", false);
  const int64_t num_layers = config.size("num_hidden_layers");
  CRUMB_CHECK(num_layers <= kMostLayers, "{}: num_hidden_layers is {}, which no model has", where, num_layers);

  LayerSpec layer;
  const auto gqa = read_gqa(config, defaults, spec.hidden_size);
  layer.attention = gqa;
  const bool mlp_bias = spec.architecture == Architecture::llama && config.flag("mlp_bias", false);
  layer.feed_forward = MlpSpec{config.size("intermediate_size"), mlp_bias};
  layer.rope = read_rope(config, spec.architecture, gqa.head_dim);
  for (const int64_t window : read_windows(config, spec.architecture, num_layers)) {
    layer.window = window;
    spec.layers.push_back(layer);
  }
  return spec;
}

DecoderSpec load_hf_spec(const Path& path) {
  const Path file = is_folder(path) ? path / "config.json" : path;
  return spec_from_hf_config(read_json(file), file.string());
}

json hf_config_from_spec(const DecoderSpec& spec) {
  const auto& layer = common_layer(spec, kHolder, {"window"});
  const auto& gqa = layer.gqa();
  auto architecture = spec.architecture;
  // transformers' Llama has no window; its Mistral is the same model with one.
  const bool has_windows = std::any_of(spec.layers.begin(), spec.layers.end(), has_window);
  if (architecture == Architecture::llama && has_windows) architecture = Architecture::mistral;
  refuse_other_biases(architecture, layer);
  json config = {{"architectures", {class_name(architecture)}},
                 {"model_type", architecture_name(architecture)},
                 {"vocab_size", spec.vocab_size},
                 {"hidden_size", spec.hidden_size},
                 {"intermediate_size", layer.mlp().intermediate},
                 {"num_hidden_layers", spec.num_layers()},
                 {"num_attention_heads", gqa.heads},
                 {"num_key_value_heads", gqa.kv_heads},
                 {"head_dim", gqa.head_dim},
                 {"hidden_act", "silu"},
                 {"max_position_embeddings", spec.context_length},
                 {"rms_norm_eps", spec.rms_norm_eps},
                 {"tie_word_embeddings", spec.tied_head},
                 {"attention_bias", gqa.output_bias}};
  if (architecture == Architecture::llama) config["mlp_bias"] = layer.mlp().bias;
  write_rope(layer.rope, config);
  write_windows(spec, architecture, config);
  return config;
}

}  // namespace crumb::arch
