#include "core/arch/hf_config.h"
#include "core/arch/tensor_table.h"

#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <numbers>

#include "core/arch/rope_scaling.h"
#include "core/formats/safetensors.h"
#include "tests/arch/spec_compare.h"
#include "tests/testing/testing.h"

namespace crumb::arch {
namespace {

using nlohmann::json;
using testing::error_of;
using ::testing::HasSubstr;

json base_config(const std::string& model_type) {
  return {{"model_type", model_type}, {"hidden_size", 64},        {"intermediate_size", 96},
          {"num_hidden_layers", 4},   {"num_attention_heads", 8}, {"num_key_value_heads", 2},
          {"vocab_size", 128},        {"rms_norm_eps", 1e-6},     {"max_position_embeddings", 1024}};
}
DecoderSpec read(const json& config) { return spec_from_hf_config(config, "config.json"); }
std::string refusal(const json& config) {
  return error_of([&] { read(config); });
}

TEST(HfConfig, BothStylesOfRotaryParametersMeanTheSame) {
  const json scaling = {
      {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 512}};
  auto older = base_config("llama"), oldest = older, newer = older;
  older["rope_theta"] = 500000.0;
  older["rope_scaling"] = scaling;
  oldest = older;
  older["rope_scaling"]["rope_type"] = "llama3";
  oldest["rope_scaling"]["type"] = "llama3";
  newer["rope_parameters"] = scaling;
  newer["rope_parameters"]["rope_type"] = "llama3";
  newer["rope_parameters"]["rope_theta"] = 500000.0;
  expect_same_spec(read(older), read(newer), 0.0);
  expect_same_spec(read(oldest), read(newer), 0.0);
  EXPECT_EQ(read(newer).layers[0].rope.base, 500000.0);
}

TEST(HfConfig, Llama3ScalingFollowsItsDefinition) {
  auto config = base_config("llama");
  config["head_dim"] = 64;
  config["rope_theta"] = 500000.0;
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 32.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 8192}};
  const auto divisors = read(config).layers[0].rope.divisors;
  ASSERT_EQ(divisors.size(), 32u);
  int kept = 0, blended = 0, divided = 0;
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double f = std::pow(500000.0, -2.0 * static_cast<double>(i) / 64.0), wavelength = 2.0 * std::numbers::pi / f;
    double expected = 1.0;
    if (wavelength > 8192.0) {
      expected = 32.0;
      ++divided;
    } else if (wavelength >= 2048.0) {
      const double smooth = (8192.0 / wavelength - 1.0) / 3.0;
      expected = f / ((1.0 - smooth) * f / 32.0 + smooth * f);
      ++blended;
    } else {
      ++kept;
    }
    EXPECT_NEAR(divisors[i] / expected, 1.0, 1e-12) << "pair " << i;
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(blended, 0);
  EXPECT_GT(divided, 0);
}

TEST(HfConfig, HunyuansAlphaChangesTheBase) {
  auto config = base_config("hunyuan_v1_dense");
  config["attention_head_dim"] = 128;
  config["rope_scaling"] = {{"type", "dynamic"}, {"alpha", 1000.0}, {"factor", 1.0}};
  const auto spec = read(config);
  EXPECT_NEAR(spec.layers[0].rope.base, 11158839.925, 0.001);
  EXPECT_EQ(spec.layers[0].gqa().head_dim, 128);
  EXPECT_EQ(spec.layers[0].gqa().qk_norm, QkNorm::after_rope);
  config.erase("attention_head_dim");
  config["head_dim"] = 128;
  expect_same_spec(read(config), spec, 0.0);
}

TEST(HfConfig, LinearScalingDividesEveryFrequency) {
  auto config = base_config("llama");
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  EXPECT_THAT(read(config).layers[0].rope.divisors, ::testing::Each(4.0));
}

TEST(HfConfig, EachArchitectureHasItsBiasesAndNorms) {
  const auto gqa = [](const char* type, bool attention_bias) {
    auto config = base_config(type);
    config["attention_bias"] = attention_bias;
    return read(config).layers[0].gqa();
  };
  EXPECT_FALSE(gqa("llama", false).qkv_bias);
  EXPECT_TRUE(gqa("llama", true).qkv_bias && gqa("llama", true).output_bias);
  EXPECT_FALSE(gqa("mistral", true).qkv_bias);  // transformers' Mistral has no such option
  EXPECT_TRUE(gqa("qwen2", false).qkv_bias);
  EXPECT_FALSE(gqa("qwen2", true).output_bias);
  EXPECT_FALSE(gqa("qwen3", false).qkv_bias);
  EXPECT_EQ(gqa("qwen3", false).qk_norm, QkNorm::before_rope);
  EXPECT_EQ(gqa("qwen3", false).head_dim, 128);  // its class's default, not hidden_size / heads
  EXPECT_EQ(gqa("qwen2", false).qk_norm, QkNorm::none);
  EXPECT_TRUE(gqa("hunyuan_v1_dense", true).output_bias);
}

std::vector<int64_t> windows(const json& config) {
  std::vector<int64_t> result;
  for (const auto& layer : read(config).layers) result.push_back(layer.window);
  return result;
}

TEST(HfConfig, MistralsWindowHoldsForAllLayers) {
  auto config = base_config("mistral");
  EXPECT_THAT(windows(config), ::testing::Each(4096));  // absent: the class's default
  config["sliding_window"] = 32;
  EXPECT_THAT(windows(config), ::testing::Each(32));
  config["sliding_window"] = nullptr;
  EXPECT_THAT(windows(config), ::testing::Each(0));
  config["sliding_window"] = 32;
  config["layer_types"] = {"full_attention", "sliding_attention", "sliding_attention", "full_attention"};
  EXPECT_THAT(windows(config), ::testing::ElementsAre(0, 32, 32, 0));
}

TEST(HfConfig, QwensWindowIsAnOptionOfTheUpperLayers) {
  auto config = base_config("qwen2");
  config["sliding_window"] = 16;
  config["max_window_layers"] = 3;
  EXPECT_THAT(windows(config), ::testing::Each(0));
  config["use_sliding_window"] = true;
  EXPECT_THAT(windows(config), ::testing::ElementsAre(0, 0, 0, 16));
  config["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention", "full_attention"};
  EXPECT_THAT(windows(config), ::testing::ElementsAre(16, 0, 16, 0));
  config["layer_types"] = {"sliding_attention"};
  EXPECT_THAT(refusal(config), HasSubstr("layer_types must list one type for each of the 4 layers"));
  config["layer_types"] = {"linear_attention", "full_attention", "full_attention", "full_attention"};
  EXPECT_THAT(refusal(config), HasSubstr("layer type linear_attention is not supported"));
}

TEST(HfConfig, RefusesWhatWouldComputeSomethingElse) {
  const auto with = [](const char* type, const char* key, const json& value) {
    auto config = base_config(type);
    config[key] = value;
    return refusal(config);
  };
  EXPECT_THAT(
      with("llama", "model_type", "gpt2"),
      HasSubstr("model_type 'gpt2' is not supported; known ones: llama, mistral, qwen2, qwen3, hunyuan_v1_dense"));
  EXPECT_THAT(with("llama", "hidden_act", "gelu"), HasSubstr("hidden_act 'gelu' is not supported"));
  EXPECT_THAT(with("llama", "rope_scaling", {{"type", "yarn"}, {"factor", 4.0}}),
              HasSubstr("rope type 'yarn' is not supported"));
  EXPECT_THAT(with("llama", "rope_parameters", {{"rope_type", "llama3"}}), HasSubstr("factor is missing"));
  EXPECT_THAT(with("llama", "rope_parameters", {{"full_attention", {{"rope_theta", 1.0}}}}),
              HasSubstr("one rotary embedding per layer type is not supported"));
  EXPECT_THAT(with("llama", "partial_rotary_factor", 0.5), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(with("hunyuan_v1_dense", "use_qk_norm", false), HasSubstr("use_qk_norm"));
  EXPECT_THAT(with("hunyuan_v1_dense", "use_cla", true), HasSubstr("use_cla"));
  EXPECT_THAT(with("hunyuan_v1_dense", "num_experts", 64), HasSubstr("mixture of experts"));
}

/// What reading says on stderr.
std::string words_of(const json& config) {
  ::testing::internal::CaptureStderr();
  read(config);
  return ::testing::internal::GetCapturedStderr();
}

TEST(HfConfig, OfOneFactInTwoPlacesTheOneThatTransformersTakesCountsAndIsNamed) {
  auto config = base_config("llama");
  config["rope_theta"] = 500.0;
  config["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 10000.0}};
  EXPECT_EQ(read(config).layers[0].rope.base, 10000.0);
  config["rope_theta"] = 501.0;  // a warning is said once
  EXPECT_THAT(words_of(config), HasSubstr("rope_parameters: rope_theta is 10000.0, but config.json: rope_theta is "
                                          "501.0: the first is used, as by transformers"));
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 2.0}};
  EXPECT_THAT(words_of(config), HasSubstr("but rope_parameters is"));
  EXPECT_THAT(read(config).layers[0].rope.divisors, ::testing::Each(2.0));
  EXPECT_EQ(read(config).layers[0].rope.base, 501.0);
  config["rope_scaling"] = json::object();  // says nothing
  EXPECT_THAT(read(config).layers[0].rope.divisors, ::testing::Each(4.0));

  auto llama3 = base_config("llama");
  llama3["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 16}};
  auto other = llama3;
  llama3["original_max_position_embeddings"] = 32;
  EXPECT_THAT(words_of(llama3), HasSubstr("original_max_position_embeddings is 32, but"));
  other["rope_scaling"]["original_max_position_embeddings"] = 32;
  expect_same_spec(read(llama3), read(other), 0.0);

  auto heads = base_config("hunyuan_v1_dense");
  heads["head_dim"] = 16;
  heads["attention_head_dim"] = 8;
  EXPECT_THAT(words_of(heads), HasSubstr("head_dim is 16, but attention_head_dim is 8"));
  EXPECT_EQ(read(heads).layers[0].gqa().head_dim, 16);
  heads["attention_head_dim"] = 16;
  heads["dtype"] = "float32";
  heads["torch_dtype"] = "bfloat16";
  EXPECT_THAT(words_of(heads), HasSubstr("dtype is \"float32\", but torch_dtype is \"bfloat16\""));
}

TEST(HfConfig, OptionsOfOtherArchitecturesAreNamedWhereTheyWouldMatter) {
  auto config = base_config("llama");
  config["embedding_multiplier"] = 1.0;
  config["attn_logit_softcapping"] = nullptr;
  config["use_parallel_residual"] = false;
  config["sliding_window"] = nullptr;
  config["pretraining_tp"] = 2;
  config["attention_dropout"] = 0.5;
  EXPECT_EQ(words_of(config), "");
  config["logits_scaling"] = 8.0;
  config["sliding_window"] = 16;
  config["rope_scaling"] = {{"type", "dynamic"}, {"factor", 1.0}, {"alpha", 50.0}};
  const auto words = words_of(config);
  EXPECT_THAT(words, HasSubstr("logits_scaling is 8.0, which a llama model does not have: it is ignored, as by "
                               "transformers"));
  EXPECT_THAT(words, HasSubstr("sliding_window is 16, which a llama model does not have"));
  EXPECT_THAT(words, HasSubstr("alpha is 50.0, which a llama model does not have"));
  EXPECT_EQ(read(config).layers[0].rope.base, 10000.0);
  EXPECT_EQ(read(config).layers[0].window, 0);
}

TEST(HfConfig, RefusesWhatTransformersFailsOn) {
  auto config = base_config("qwen2");
  config["sliding_window"] = 16;
  config["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention", "full_attention"};
  EXPECT_THAT(refusal(config), HasSubstr("layer_types has layers of sliding_attention, but use_sliding_window is not"));
  auto causal = base_config("llama");
  causal["is_causal"] = false;
  EXPECT_THAT(refusal(causal), HasSubstr("is_causal: false"));
  auto layered = base_config("llama");
  layered["per_layer_config"] = {{"1", {{"num_key_value_heads", 1}}}};
  EXPECT_THAT(refusal(layered), HasSubstr("per_layer_config is not supported"));
}

TEST(HfConfig, RefusesNumbersThatNoModelHas) {
  const auto with = [](const char* key, const json& value) {
    auto config = base_config("llama");
    config[key] = value;
    return refusal(config);
  };
  EXPECT_THAT(with("vocab_size", nullptr), HasSubstr("config.json: vocab_size is missing"));
  EXPECT_THAT(with("vocab_size", "many"), HasSubstr("vocab_size must be an integer, not \"many\""));
  EXPECT_THAT(with("hidden_size", -64), HasSubstr("hidden_size is -64, which no model has"));
  EXPECT_THAT(with("num_hidden_layers", 1000000), HasSubstr("num_hidden_layers is 1000000"));
  EXPECT_THAT(with("num_key_value_heads", 3),
              HasSubstr("num_attention_heads 8 is not a multiple of num_key_value_heads 3"));
  EXPECT_THAT(with("num_attention_heads", 6), HasSubstr("hidden_size 64 is not a multiple of num_attention_heads 6"));
  EXPECT_THAT(with("head_dim", 7), HasSubstr("head_dim 7 is odd"));
  EXPECT_THAT(with("head_dim", 32770), HasSubstr("head_dim is 32770, which no model has"));
  EXPECT_THAT(with("head_dim", 0), HasSubstr("head_dim is 0, which no model has"));
  EXPECT_THAT(with("rms_norm_eps", 1e308), HasSubstr("rms_norm_eps is 1e+308, which no model has"));
  EXPECT_THAT(with("rms_norm_eps", 0), HasSubstr("rms_norm_eps must be greater than 0"));
  EXPECT_THAT(refusal(json::array()), HasSubstr("not a JSON object"));
  auto hunyuan = base_config("hunyuan_v1_dense");
  hunyuan["rope_scaling"] = {{"type", "dynamic"}, {"alpha", 1e300}};
  EXPECT_THAT(refusal(hunyuan), HasSubstr("alpha is 1e+300, which no model has"));
}

TEST(HfConfig, WrittenAndReadAgainItIsTheSameModel) {
  for (const auto& entry : std::filesystem::directory_iterator(testing::source_dir() / "tests/runtime/goldens")) {
    const auto spec = load_hf_spec(entry.path());
    expect_same_spec(spec_from_hf_config(hf_config_from_spec(spec), "written"), spec, 1e-12);
  }
}

DecoderSpec golden_spec(const std::string& name) {
  return load_hf_spec(testing::source_dir() / "tests/runtime/goldens" / name);
}

TEST(HfConfig, WindowsOfSomeLayersOnlyComeBack) {
  for (const char* name : {"mistral", "llama", "qwen2", "qwen3"}) {
    for (const bool first_layer : {true, false}) {
      SCOPED_TRACE(name);
      auto spec = golden_spec(name);
      ASSERT_EQ(spec.num_layers(), 2);
      spec.layers[0].window = first_layer ? 16 : 0;
      spec.layers[1].window = first_layer ? 0 : 16;
      const json config = hf_config_from_spec(spec);
      expect_same_spec(spec_from_hf_config(config, "written"), spec, 1e-12);
      EXPECT_EQ(config.at("model_type"), name == std::string("llama") ? "mistral" : name);
    }
  }
}

TEST(HfConfig, NamesTheLayerThatDiffersInWhatItSaysOnce) {
  const auto complaint = [](const std::function<void(LayerSpec&)>& change) {
    auto spec = golden_spec("llama");
    change(spec.layers.back());
    return error_of([&] { hf_config_from_spec(spec); });
  };
  EXPECT_EQ(complaint([](auto& layer) { std::get<GqaSpec>(layer.attention).heads = 8; }),
            "config.json holds one attention.heads for all layers; layer 0 of this model has 4, layer 1 has 8");
  EXPECT_EQ(complaint([](auto& layer) { std::get<GqaSpec>(layer.attention).qkv_bias = true; }),
            "config.json holds one attention.qkv_bias for all layers; layer 0 of this model has false, layer 1 has "
            "true");
  EXPECT_EQ(complaint([](auto& layer) { layer.rope.divisors.back() = 4; }),
            "config.json holds one rope.divisors[3] for all layers; layer 0 of this model has 1, layer 1 has 4");
}

TEST(HfConfig, RefusesToWriteWhatItCannotSay) {
  const auto written = [](const std::string& name, const std::function<void(LayerSpec&, GqaSpec&)>& change) {
    auto spec = golden_spec(name);
    for (auto& layer : spec.layers) change(layer, std::get<GqaSpec>(layer.attention));
    return error_of([&] { hf_config_from_spec(spec); });
  };
  const std::string message = "config.json has no way to say that a ";
  EXPECT_EQ(written("llama", [](auto&, auto& gqa) { gqa.qkv_bias = true; }),
            message + "llama model has biases of q, k, v: yes, of the attention's output: no");
  EXPECT_EQ(written("llama_bias", [](auto& layer, auto&) { layer.window = 16; }),
            message + "mistral model has biases of q, k, v: yes, of the attention's output: yes");
  EXPECT_EQ(written("qwen2", [](auto&, auto& gqa) { gqa.qkv_bias = false; }),
            message + "qwen2 model has biases of q, k, v: no, of the attention's output: no");
  EXPECT_EQ(written("qwen3", [](auto& layer, auto&) { std::get<MlpSpec>(layer.feed_forward).bias = true; }),
            message + "qwen3 model has biases in its feed-forward network");
  EXPECT_EQ(written("hunyuan", [](auto& layer, auto&) { layer.window = 16; }),
            message + "hunyuan_v1_dense model has a sliding window");
  const Llama3Scaling far_beyond{.factor = 2, .original_context_length = 1e30};  // no integer holds it
  EXPECT_EQ(written("llama",
                    [&](auto& layer, auto& gqa) {
                      layer.rope.base = 1e40;
                      layer.rope.divisors = llama3_divisors(far_beyond, gqa.head_dim, layer.rope.base);
                    }),
            "config.json has no way to say this model's rotary divisors");
  int64_t window = 16;
  EXPECT_EQ(written("mistral", [&](auto& layer, auto&) { layer.window = window++; }),
            "config.json holds one sliding window; layer 0 of this model has 16, layer 1 has 17");
}

TEST(HfConfig, DescribesTheTensorsOfModelsThatOthersMade) {
  struct Fixture {
    const char* name;
    Architecture architecture;
    double base;
    int64_t context, window;
    double last_divisor;
    QkNorm norm;
  };
  for (const auto& fixture :
       {Fixture{"tiny_llama3", Architecture::llama, 500000.0, 512, 0, 8.0, QkNorm::none},
        Fixture{"tiny_mistral", Architecture::mistral, 10000.0, 512, 8, 1.0, QkNorm::none},
        Fixture{"tiny_qwen3", Architecture::qwen3, 1000000.0, 2048, 0, 1.0, QkNorm::before_rope}}) {
    SCOPED_TRACE(fixture.name);
    CRUMB_NEED_DATA(folder, std::string("vectors/tiny-hf-fixtures/") + fixture.name);
    const auto spec = load_hf_spec(folder);
    const auto& layer = spec.layers.back();
    EXPECT_EQ(spec.architecture, fixture.architecture);
    EXPECT_EQ(spec.num_layers(), 2);
    EXPECT_EQ(spec.context_length, fixture.context);
    EXPECT_EQ(layer.window, fixture.window);
    EXPECT_EQ(layer.gqa().head_dim, 16);
    EXPECT_EQ(layer.gqa().qk_norm, fixture.norm);
    EXPECT_EQ(layer.rope.base, fixture.base);
    EXPECT_EQ(layer.rope.divisors.back(), fixture.last_divisor);
    const formats::SafetensorsReader file(folder);
    const auto table = tensor_table(spec);
    EXPECT_EQ(file.tensors().size(), table.size());
    for (const auto& desc : table) EXPECT_EQ(file.at(desc.hf_name).shape, desc.shape) << desc.hf_name;
    expect_same_spec(spec_from_hf_config(hf_config_from_spec(spec), "written"), spec, 1e-12);
  }
}

TEST(HfConfig, TransformersReadsWhatIsWrittenAsTheSameModel) {
  CRUMB_NEED_PEERS(python);
  const testing::TempDir dir;
  std::vector<DecoderSpec> specs;
  std::string folders;
  for (const char* name : {"llama_bias", "llama3", "mistral", "qwen2_window", "qwen3_bias", "hunyuan"}) {
    specs.push_back(golden_spec(name));
    if (name == std::string("mistral")) specs.back().layers[0].window = 0;
    std::filesystem::create_directories(dir / name);
    testing::write_file(dir / name / "config.json", hf_config_from_spec(specs.back()).dump());
    folders += " " + (dir / name).string();
  }
  const auto script = testing::source_dir() / "tests" / "arch" / "describe_models.py";
  const auto result = testing::run_command(python.string() + " " + script.string() + folders);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto described = json::parse(result.out);
  ASSERT_EQ(described.size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const auto& spec = specs[i];
    const auto& rope = spec.layers[0].rope;
    std::map<std::string, std::vector<int64_t>> shapes;
    for (const auto& desc : tensor_table(spec)) shapes[desc.hf_name] = desc.shape;
    EXPECT_EQ(described[i].at("shapes"), json(shapes));
    std::vector<int64_t> windows;
    for (const auto& layer : spec.layers) windows.push_back(layer.window);
    EXPECT_EQ(described[i].at("windows"), json(windows));
    for (size_t pair = 0; pair < rope.divisors.size(); ++pair) {
      const double exponent = -2.0 * static_cast<double>(pair) / static_cast<double>(rope.dim);
      const double expected = std::pow(rope.base, exponent) / rope.divisors[pair];
      EXPECT_NEAR(described[i].at("inv_freq").at(pair).get<double>() / expected, 1.0, 1e-6);
    }
  }
}

}  // namespace
}  // namespace crumb::arch
