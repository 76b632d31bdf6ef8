#include "core/arch/gguf_metadata.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/arch/hf_config.h"
#include "tests/arch/spec_compare.h"
#include "tests/testing/testing.h"

namespace crumb::arch {
namespace {

using formats::GgufReader;
using formats::GgufWriter;
using formats::TensorType;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TempDir;

DecoderSpec golden_spec(const std::string& name) {
  return load_hf_spec(testing::source_dir() / "tests" / "runtime" / "goldens" / name);
}

/// All tensors of the model, zeros.
void write_tensors(const DecoderSpec& spec, GgufWriter& writer, const Path& path) {
  const auto freqs = rope_freqs(spec);
  const auto count = static_cast<int64_t>(freqs.size());
  if (count > 0) writer.declare("rope_freqs.weight", TensorType::f32, {count});
  for (const auto& desc : tensor_table(spec)) writer.declare(desc.gguf.name, TensorType::f32, desc.shape);
  writer.begin(path);
  if (count > 0) writer.write(freqs.data(), count * 4);
  for (const auto& desc : tensor_table(spec)) {
    const std::vector<float> zeros(static_cast<size_t>(desc.elements()));
    writer.write(zeros.data(), desc.elements() * 4);
  }
  writer.finish();
  writer.commit();
}

TEST(GgufMetadata, WrittenAndReadAgainItIsTheSameModel) {
  for (const auto& entry : std::filesystem::directory_iterator(testing::source_dir() / "tests/runtime/goldens")) {
    SCOPED_TRACE(entry.path().filename());
    const TempDir dir;
    const auto spec = load_hf_spec(entry.path());
    GgufWriter writer;
    set_gguf_metadata(spec, writer);
    write_tensors(spec, writer, dir / "model.gguf");
    expect_same_spec(spec_from_gguf(GgufReader(dir / "model.gguf")), spec, 1e-6);
  }
}

TEST(GgufMetadata, HoldsTheKeysAndTypesThatLlamaCppReads) {
  const TempDir dir;
  const auto spec = golden_spec("hunyuan");
  GgufWriter writer;
  set_gguf_metadata(spec, writer);
  write_tensors(spec, writer, dir / "model.gguf");
  const GgufReader gguf(dir / "model.gguf");
  EXPECT_EQ(gguf.get_string("general.architecture"), "hunyuan-dense");
  using formats::GgufType;
  for (const char* key : {"vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length",
                          "attention.head_count", "attention.head_count_kv", "attention.key_length",
                          "attention.value_length", "rope.dimension_count", "rope.scaling.original_context_length"}) {
    const auto* value = gguf.find(std::string("hunyuan-dense.") + key);
    ASSERT_NE(value, nullptr) << key;
    EXPECT_EQ(value->type(), GgufType::u32) << key;
  }
  for (const char* key : {"attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.scaling.factor"}) {
    const auto* value = gguf.find(std::string("hunyuan-dense.") + key);
    ASSERT_NE(value, nullptr) << key;
    EXPECT_EQ(value->type(), GgufType::f32) << key;
  }
  EXPECT_EQ(gguf.get_string("hunyuan-dense.rope.scaling.type"), "none");
  EXPECT_EQ(gguf.get_int("hunyuan-dense.context_length"), 128);
}

TEST(GgufMetadata, RopeFreqsAreTheDivisorsOfLlama3AndNothingElse) {
  const auto freqs = rope_freqs(golden_spec("llama3"));
  ASSERT_EQ(freqs.size(), 4u);
  EXPECT_EQ(freqs.front(), 1.0f);
  EXPECT_EQ(freqs.back(), 8.0f);
  EXPECT_TRUE(rope_freqs(golden_spec("llama")).empty());
  EXPECT_TRUE(rope_freqs(golden_spec("llama_linear")).empty());  // a factor in the metadata says it
}

TEST(GgufMetadata, RefusesWhatTheFormatCannotSay) {
  auto windows = golden_spec("qwen2_window");
  windows.layers[0].window = 3;
  GgufWriter writer;
  EXPECT_THAT(error_of([&] { set_gguf_metadata(windows, writer); }), HasSubstr("GGUF holds one sliding window"));
  auto scaled = golden_spec("qwen3");
  for (auto& layer : scaled.layers) layer.rope.divisors.back() = 2.0;
  GgufWriter other;
  EXPECT_THAT(error_of([&] { set_gguf_metadata(scaled, other); }), HasSubstr("for architecture llama only"));
}

/// The message for a llama file to whose metadata `change` was made.
std::string refusal(const std::function<void(GgufWriter&)>& change) {
  const TempDir dir;
  GgufWriter writer;
  change(writer);
  write_tensors(golden_spec("llama"), writer, dir / "model.gguf");
  return error_of([&] { spec_from_gguf(GgufReader(dir / "model.gguf")); });
}
void set_sizes(GgufWriter& writer) {
  writer.set_string("general.architecture", "llama");
  writer.set_u32("llama.context_length", 128);
  writer.set_u32("llama.embedding_length", 32);
  writer.set_u32("llama.block_count", 2);
  writer.set_u32("llama.feed_forward_length", 48);
  writer.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-6f);
}

TEST(GgufMetadata, NamesTheKeyThatIsMissingOrImpossible) {
  EXPECT_THAT(refusal([](GgufWriter& w) { w.set_string("general.architecture", "bert"); }),
              HasSubstr("architecture 'bert' is not supported; known ones: llama, qwen2, qwen3, hunyuan-dense"));
  EXPECT_THAT(refusal([](GgufWriter& w) { set_sizes(w); }), HasSubstr("llama.attention.head_count"));
  EXPECT_THAT(refusal([](GgufWriter& w) {
                set_sizes(w);
                w.set_u32("llama.attention.head_count", 0);
              }),
              HasSubstr("llama.attention.head_count is 0, which no model has"));
  EXPECT_THAT(refusal([](GgufWriter& w) {
                set_sizes(w);
                w.set_u32("llama.attention.head_count", 1);
                w.set_u32("llama.attention.key_length", 2147483646);
              }),
              HasSubstr("attention.key_length is 2147483646, which no model has"));
  EXPECT_THAT(refusal([](GgufWriter& w) {
                set_sizes(w);
                w.set_u32("llama.attention.head_count", 4);
                w.set_string("llama.rope.scaling.type", "yarn");
              }),
              HasSubstr("rope scaling 'yarn' is not supported"));
  EXPECT_THAT(refusal([](GgufWriter& w) {
                set_sizes(w);
                w.set_u32("llama.attention.head_count", 4);
                w.set_u32("llama.rope.dimension_count", 4);
              }),
              HasSubstr("a rotary embedding of a part of the head is not supported"));
}

/// A file of the golden model `name` to whose metadata `change` was made, read; its warnings in `words`.
DecoderSpec changed(const std::string& name, const std::function<void(GgufWriter&)>& change, std::string* words) {
  const TempDir dir;
  GgufWriter writer;
  const auto spec = golden_spec(name);
  set_gguf_metadata(spec, writer);
  change(writer);
  write_tensors(spec, writer, dir / "model.gguf");
  ::testing::internal::CaptureStderr();
  DecoderSpec read;
  try {
    read = spec_from_gguf(GgufReader(dir / "model.gguf"));
  } catch (const Error&) {
    ::testing::internal::GetCapturedStderr();
    throw;
  }
  const std::string text = ::testing::internal::GetCapturedStderr();
  if (words != nullptr) *words = text;
  return read;
}
std::string refusal_of(const std::string& name, const std::function<void(GgufWriter&)>& change) {
  return error_of([&] { changed(name, change, nullptr); });
}

TEST(GgufMetadata, TheOldKeyOfLinearScalingCountsWhereTheNewOneIsAbsent) {
  std::string words;
  const auto old_key = [](GgufWriter& w) { w.set_f32("llama.rope.scale_linear", 4.0f); };
  EXPECT_THAT(changed("llama", old_key, &words).layers[0].rope.divisors, ::testing::Each(4.0));
  EXPECT_EQ(words, "");
  const auto both = [&](GgufWriter& w) {
    old_key(w);
    w.set_f32("llama.rope.scaling.factor", 2.0f);
  };
  EXPECT_THAT(changed("llama", both, &words).layers[0].rope.divisors, ::testing::Each(2.0));
  EXPECT_THAT(words, HasSubstr("llama.rope.scaling.factor is 2, the older llama.rope.scale_linear is 4: the first is"));
  const auto none = [&](GgufWriter& w) {
    old_key(w);
    w.set_string("llama.rope.scaling.type", "none");
  };
  EXPECT_THAT(changed("llama", none, &words).layers[0].rope.divisors, ::testing::Each(1.0));
  const auto zero = [](GgufWriter& w) { w.set_f32("llama.rope.scaling.factor", 0.0f); };
  EXPECT_THAT(changed("llama", zero, &words).layers[0].rope.divisors, ::testing::Each(1.0));
}

TEST(GgufMetadata, HunyuansAlphaChangesTheBase) {
  std::string words;
  const auto plain = golden_spec("hunyuan").layers[0].rope;
  const auto alpha = [](GgufWriter& w) { w.set_f32("hunyuan-dense.rope.scaling.alpha", 50.0f); };
  const auto rope = changed("hunyuan", alpha, &words).layers[0].rope;
  const double dim = static_cast<double>(rope.dim);
  EXPECT_NEAR(rope.base / plain.base, std::pow(50.0, dim / (dim - 2)), 1e-3);
  EXPECT_EQ(words, "");
  changed(
      "llama", [](GgufWriter& w) { w.set_f32("llama.rope.scaling.alpha", 50.0f); }, &words);
  EXPECT_THAT(words, HasSubstr("llama.rope.scaling.alpha is 50: a key that Crumb does not know"));
}

TEST(GgufMetadata, KeysThatChangeTheComputationAreRefusedByName) {
  const auto number = [](const char* key, float value) {
    return refusal_of("llama", [&](GgufWriter& w) { w.set_f32(key, value); });
  };
  EXPECT_THAT(number("llama.rope.scaling.attn_factor", 0.5f), HasSubstr("llama.rope.scaling.attn_factor is 0.5"));
  EXPECT_EQ(number("llama.rope.scaling.attn_factor", 1.0f), "");
  EXPECT_THAT(refusal_of("llama", [](GgufWriter& w) { w.set_bool("llama.attention.causal", false); }),
              HasSubstr("llama.attention.causal is false: attention that sees later tokens is not supported"));
  EXPECT_THAT(refusal_of("llama", [](GgufWriter& w) { w.set_u32("llama.expert_count", 8); }),
              HasSubstr("llama.expert_count is 8: mixture of experts is not supported"));
  EXPECT_THAT(refusal_of("qwen3", [](GgufWriter& w) { w.set_u32("qwen3.nextn_predict_layers", 1); }),
              HasSubstr("qwen3.nextn_predict_layers is 1"));
}

TEST(GgufMetadata, UnknownKeysThatCouldMatterAreNamed) {
  std::string words;
  changed(
      "llama",
      [](GgufWriter& w) {
        w.set_f32("llama.logit_scale", 0.25f);
        w.set_f32("llama.residual_scale", 1.0f);
        w.set_f32("llama.attention.clamp_kqv", 0.0f);
        w.set_bool("llama.use_parallel_residual", false);
        w.set_u32("llama.pooling_type", 1);
        w.set_string("llama.hidden_activation", "gelu");
        w.set_f32("other.logit_scale", 3.0f);
      },
      &words);
  EXPECT_THAT(words, HasSubstr("llama.logit_scale is 0.25: a key that Crumb does not know for architecture llama; it "
                               "is ignored"));
  EXPECT_THAT(words, HasSubstr("llama.hidden_activation is "));
  EXPECT_EQ(std::count(words.begin(), words.end(), '\n'), 2) << words;
}

TEST(GgufMetadata, TheEpsilonOfTheNormsIsNotGuessed) {
  EXPECT_THAT(refusal([](GgufWriter& w) {
                w.set_string("general.architecture", "llama");
                w.set_u32("llama.context_length", 128);
                w.set_u32("llama.embedding_length", 32);
              }),
              HasSubstr("llama.attention.layer_norm_rms_epsilon"));
}

TEST(GgufMetadata, NamesTheModelsOfWhichLlamaCppLoadsNoFile) {
  EXPECT_THAT(error_of([] { check_llama_cpp_loads(golden_spec("qwen3_bias")); }),
              HasSubstr("llama.cpp knows no bias of attention's output (o_proj.bias) in a qwen3 model"));
  EXPECT_THAT(error_of([] { check_llama_cpp_loads(golden_spec("hunyuan_bias")); }),
              HasSubstr("o_proj.bias) in a hunyuan-dense model"));
  auto wide = golden_spec("qwen2");
  for (auto& layer : wide.layers) std::get<GqaSpec>(layer.attention).head_dim *= 2;
  EXPECT_THAT(error_of([&] { check_llama_cpp_loads(wide); }), HasSubstr("heads of"));
  for (const char* name : {"llama", "llama_bias", "llama3", "mistral", "qwen2", "qwen3", "hunyuan"})
    EXPECT_EQ(error_of([&] { check_llama_cpp_loads(golden_spec(name)); }), "") << name;
}

TEST(GgufMetadata, NamesTheLayerThatDiffersInWhatItSaysOnce) {
  const auto complaint = [](const std::function<void(LayerSpec&)>& change) {
    auto spec = golden_spec("llama");
    change(spec.layers.back());
    GgufWriter writer;
    const auto message = error_of([&] { set_gguf_metadata(spec, writer); });
    EXPECT_EQ(error_of([&] { check_llama_cpp_loads(spec); }), message);
    return message;
  };
  EXPECT_EQ(complaint([](auto& layer) { std::get<MlpSpec>(layer.feed_forward).intermediate = 64; }),
            "GGUF holds one feed_forward.intermediate for all layers; layer 0 of this model has 48, layer 1 has 64");
  EXPECT_EQ(complaint([](auto& layer) { std::get<GqaSpec>(layer.attention).kv_heads = 4; }),
            "GGUF holds one attention.kv_heads for all layers; layer 0 of this model has 2, layer 1 has 4");
  EXPECT_EQ(complaint([](auto& layer) { layer.rope.base = 500; }),
            "GGUF holds one rope.base for all layers; layer 0 of this model has 10000, layer 1 has 500");
}

TEST(GgufMetadata, ABiasOfTheLastLayerAloneKeepsAFileFromLlamaCpp) {
  auto spec = golden_spec("qwen3");
  std::get<GqaSpec>(spec.layers.back().attention).output_bias = true;
  EXPECT_THAT(error_of([&] { check_llama_cpp_loads(spec); }), HasSubstr("o_proj.bias) in a qwen3 model"));
}

TEST(GgufMetadata, BiasesAreThoseOfEachLayer) {
  auto spec = golden_spec("llama");
  std::get<GqaSpec>(spec.layers.back().attention).qkv_bias = true;
  std::get<MlpSpec>(spec.layers.back().feed_forward).bias = true;
  const TempDir dir;
  GgufWriter writer;
  set_gguf_metadata(spec, writer);
  write_tensors(spec, writer, dir / "model.gguf");
  expect_same_spec(spec_from_gguf(GgufReader(dir / "model.gguf")), spec, 1e-6);
}

/// What the read-back of the model "llama" says when the model was another.
std::string read_back(const std::function<void(DecoderSpec&, LayerSpec&)>& change) {
  const auto spec = golden_spec("llama3");
  const TempDir dir;
  GgufWriter writer;
  set_gguf_metadata(spec, writer);
  write_tensors(spec, writer, dir / "model.gguf");
  auto other = spec;
  change(other, other.layers.back());
  std::string message;
  try {
    check_read_back(GgufReader(dir / "model.gguf"), other);
  } catch (const RunError& error) {
    message = error.what();
  }
  return message;
}

TEST(GgufMetadata, ReadBackNamesTheFactThatDiffersAndBothValues) {
  EXPECT_EQ(read_back([](auto&, auto&) {}), "");
  EXPECT_EQ(read_back([](auto& spec, auto&) { spec.architecture = Architecture::mistral; }), "");  // one name in GGUF
  EXPECT_EQ(read_back([](auto& spec, auto&) { spec.rms_norm_eps *= 1 + 1e-12; }), "");             // one float32
  const auto message = [](const std::string& field, const std::string& written, const std::string& model) {
    return "read-back: " + field + " is " + written + " in the metadata that were written, " + model + " in the model";
  };
  EXPECT_EQ(read_back([](auto& spec, auto&) { spec.context_length = 64; }), message("context_length", "128", "64"));
  EXPECT_EQ(read_back([](auto& spec, auto&) { spec.tied_head = true; }), message("tied_head", "false", "true"));
  EXPECT_EQ(read_back([](auto& spec, auto&) { spec.layers.pop_back(); }), message("number of layers", "2", "1"));
  EXPECT_EQ(read_back([](auto&, auto& layer) { std::get<GqaSpec>(layer.attention).heads = 2; }),
            message("layer 1: attention.heads", "4", "2"));
  EXPECT_EQ(read_back([](auto&, auto& layer) { layer.window = 5; }), message("layer 1: window", "0", "5"));
  EXPECT_EQ(read_back([](auto&, auto& layer) { layer.rope.base = 20000; }),
            message("layer 1: rope.base", "10000", "20000"));
  EXPECT_EQ(read_back([](auto&, auto& layer) { layer.rope.divisors[3] = 2; }),
            message("layer 1: rope.divisors[3]", "8", "2"));
  EXPECT_EQ(read_back([](auto&, auto& layer) { std::get<GqaSpec>(layer.attention).qk_norm = QkNorm::after_rope; }),
            message("layer 1: attention.qk_norm", "none", "after the rotation"));
}

}  // namespace
}  // namespace crumb::arch
