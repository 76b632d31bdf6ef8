#include "core/arch/gguf_metadata.h"

#include <gmock/gmock.h>

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
  for (const auto& desc : tensor_table(spec)) writer.declare(desc.gguf_name, TensorType::f32, desc.shape);
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

}  // namespace
}  // namespace crumb::arch
