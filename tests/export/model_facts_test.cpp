// Facts of models that disagree, or that a file format says in several ways: as transformers and stock llama.cpp
// read them.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "core/formats/gguf.h"
#include "core/formats/safetensors.h"
#include "export/export.h"
#include "tests/export/peers.h"
#include "tests/export/test_models.h"
#include "tests/testing/testing.h"

namespace crumb::exporting {
namespace {

namespace fs = std::filesystem;
using arch::Architecture;
using nlohmann::json;
using runtime::TokenId;
using testing::small_spec;
using testing::TempDir;
using testing::write_model;

void run(const fs::path& model, const fs::path& output, const std::string& target) {
  export_checkpoint(*quant::open_checkpoint(model), output, {target, "", "", false, 2});
}

/// A tied model that also stores a head of its own, or stores nothing but its head.
void retie(const fs::path& from, const fs::path& to, bool keep_embedding) {
  fs::copy(from, to);
  const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight";
  const formats::SafetensorsReader reader(from);
  std::vector<std::pair<std::string, std::vector<float>>> tensors;
  for (const auto& info : reader.tensors()) {
    std::vector<float> values(static_cast<size_t>(info.bytes / formats::dtype_bytes(info.dtype)));
    reader.read_rows(info, 0, info.rows(), values.data());
    if (info.name != embedding || keep_embedding) tensors.emplace_back(info.name, values);
    if (info.name != embedding) continue;
    if (keep_embedding)
      for (size_t i = 0; i < values.size(); ++i) values[i] = 1.3f * values[i] + 0.01f * static_cast<float>(i % 7);
    tensors.emplace_back(head, values);
  }
  formats::SafetensorsWriter writer;
  for (const auto& [name, values] : tensors)
    writer.declare(name, formats::DType::f32, reader.at(name == head ? embedding : name).shape);
  writer.begin_folder(to, int64_t{1} << 40);
  for (const auto& [name, values] : tensors) writer.write(values.data(), static_cast<int64_t>(values.size() * 4));
  writer.finish();
}

TEST(Transformers, AgreesOnTheHeadOfATiedModel) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  const std::vector<TokenId> ids = {5, 100, 17, 42, 200, 256, 3, 77};
  write_model(dir / "plain", small_spec(Architecture::llama, 64), formats::DType::f32);
  retie(dir / "plain", dir / "both", true);
  retie(dir / "plain", dir / "head", false);
  run(dir / "both", dir / "exported", "hf-bf16");
  std::string arguments = fmt::format(" {}", fmt::join(ids, ","));
  const std::vector<std::string> names = {"plain", "both", "head", "exported"};
  for (const auto& name : names) arguments += " " + (dir / name).string() + " " + (dir / (name + ".f32")).string();
  const auto result = testing::run_command(python.string() + " " + script("transformers_peer.py") + arguments);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const auto& name : names) {
    const std::string bytes = testing::read_file(dir / (name + ".f32"));
    const auto* expected = reinterpret_cast<const float*>(bytes.data());
    const auto decoder = runtime::load_decoder(*quant::open_checkpoint(dir / name), std::make_shared<ThreadPool>(2));
    const auto state = decoder->new_state();
    decoder->forward(std::vector<runtime::SequenceInput>{{state.get(), ids}}, runtime::LogitsFor::all,
                     [&](int64_t, int64_t position, std::span<const float> logits) {
                       for (size_t i = 0; i < logits.size(); ++i)
                         ASSERT_NEAR(logits[i], expected[static_cast<size_t>(position) * logits.size() + i], 1e-3)
                             << name << " position " << position << " id " << i;
                     });
  }
  EXPECT_EQ(testing::read_file(dir / "plain.f32"), testing::read_file(dir / "head.f32"));
  EXPECT_NE(testing::read_file(dir / "plain.f32"), testing::read_file(dir / "both.f32"));
}

/// The file with one more key.
void copy_with_key(const fs::path& from, const fs::path& to, const std::string& key, formats::GgufValue value) {
  const formats::GgufReader reader(from);
  formats::GgufWriter writer;
  for (const auto& [name, held] : reader.metadata()) writer.set(name, held);
  writer.set(key, std::move(value));
  for (const auto& tensor : reader.tensors()) writer.declare(tensor.name, tensor.type, tensor.shape);
  writer.begin(to);
  for (const auto& tensor : reader.tensors()) writer.write(reader.bytes(tensor).data(), tensor.bytes);
  writer.finish();
  writer.commit();
}

TEST(LlamaCpp, LoadsEveryOptionThatThePlanLetsPassAndReadsScalingAsWeDo) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  const std::vector<TokenId> prompt = {84, 40, 71, 12, 200, 256, 3, 77, 9, 11, 250, 4, 4, 8, 66, 68};
  json jobs = json::array();
  std::vector<fs::path> files;
  const auto add = [&](const fs::path& file) {
    files.push_back(file);
    jobs.push_back({{"model", file.string()}, {"prompt", prompt}, {"tokens", 8}, {"top", 8}, {"ignore_eos", true}});
  };
  const auto add_model = [&](const std::string& name, const arch::DecoderSpec& spec) {
    write_model(dir / name, spec);
    run(dir / name, dir / (name + ".gguf"), "gguf-bf16");
    add(dir / (name + ".gguf"));
  };
  auto biased = small_spec(Architecture::llama, 64);
  for (auto& layer : biased.layers) {
    auto& gqa = std::get<arch::GqaSpec>(layer.attention);
    gqa.qkv_bias = gqa.output_bias = true;
    std::get<arch::MlpSpec>(layer.feed_forward).bias = true;
  }
  add_model("biased", biased);
  for (const auto architecture : {Architecture::llama, Architecture::qwen3, Architecture::hunyuan_v1_dense}) {
    auto wide = small_spec(architecture, 64);
    for (auto& layer : wide.layers) {
      std::get<arch::GqaSpec>(layer.attention).head_dim = 32;
      layer.rope = {32, 10000.0, std::vector<double>(16, 1.0)};
    }
    add_model("wide-" + std::string(arch::architecture_name(architecture)), wide);
  }
  for (const auto architecture : {Architecture::llama, Architecture::mistral, Architecture::qwen2, Architecture::qwen3,
                                  Architecture::hunyuan_v1_dense}) {
    auto spec = small_spec(architecture, 64);
    for (auto& layer : spec.layers) layer.rope.divisors.assign(8, 4.0);
    add_model("linear-" + std::string(arch::architecture_name(architecture)), spec);
  }
  write_model(dir / "llama", small_spec(Architecture::llama, 64));
  run(dir / "llama", dir / "llama.gguf", "gguf-bf16");
  copy_with_key(dir / "llama.gguf", dir / "old.gguf", "llama.rope.scale_linear", {4.0f});
  add(dir / "old.gguf");
  write_model(dir / "qwen2", small_spec(Architecture::qwen2, 64));
  run(dir / "qwen2", dir / "qwen2.gguf", "gguf-bf16");
  copy_with_key(dir / "qwen2.gguf", dir / "scale.gguf", "qwen2.attention.scale", {0.5f});  // which it does not read
  add(dir / "scale.gguf");
  write_model(dir / "hunyuan", small_spec(Architecture::hunyuan_v1_dense, 64));
  run(dir / "hunyuan", dir / "hunyuan.gguf", "gguf-bf16");
  copy_with_key(dir / "hunyuan.gguf", dir / "alpha.gguf", "hunyuan-dense.rope.scaling.alpha", {50.0f});
  add(dir / "alpha.gguf");
  const json results = llama_cpp(python, dir, jobs);
  ASSERT_EQ(results.size(), files.size());
  for (size_t i = 0; i < results.size(); ++i) {
    ASSERT_GE(results[i].at("steps").size(), 1u) << files[i];
    const json steps = json::array({results[i].at("steps")[0]});  // later ones may be left out, with half a character
    // llama.cpp rounds activations to bf16; a wrong rotation or a lost bias would show as 1 or more.
    EXPECT_LT(log_probability_difference(our_steps(files[i], prompt, steps), steps), 0.06f) << files[i];
  }
}

}  // namespace
}  // namespace crumb::exporting
