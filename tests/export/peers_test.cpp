// Exported files as other programs read them: the gguf package, stock llama.cpp (xllamacpp), transformers.
#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "export/export.h"
#include "tests/export/peers.h"
#include "tests/export/test_models.h"
#include "tests/testing/testing.h"

namespace crumb::exporting {
namespace {

namespace fs = std::filesystem;
using arch::Architecture;
using nlohmann::json;
using quant::Grid;
using quant::QuantFormat;
using runtime::TokenId;
using testing::quantized_model;
using testing::run_command;
using testing::small_spec;
using testing::TempDir;
using testing::write_model;

const QuantFormat kSeqRow{Grid::seq, 2, true, 0};
const std::vector<std::string> kTargets = {"gguf-bf16", "gguf-q2_k", "gguf-q4_0",
                                           "gguf-q8_0"};  // llama.cpp's own types
const std::vector<Architecture> kArchitectures = {Architecture::llama, Architecture::mistral, Architecture::qwen2,
                                                  Architecture::qwen3, Architecture::hunyuan_v1_dense};

void run(const fs::path& model, const fs::path& output, const std::string& target, const std::string& embedding = "") {
  export_checkpoint(*quant::open_checkpoint(model), output, {target, embedding, "", false, 2});
}

TEST(GgufPackage, DecodesEveryFileToCodesTimesScalesInHfOrder) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  std::string arguments;
  const auto add = [&](const fs::path& model, const std::string& target, const std::string& embedding = "") {
    const fs::path out = model / (target + embedding + ".gguf");
    run(model, out, target, embedding);
    arguments += " " + model.string() + " " + out.string();
  };
  for (const auto architecture : kArchitectures)
    add(quantized_model(dir / std::string(arch::architecture_name(architecture)), small_spec(architecture, 256),
                        kSeqRow),
        "gguf-q2_k");
  const auto wide = quantized_model(dir / "wide", small_spec(Architecture::llama, 512), kSeqRow);
  for (const std::string target : {"gguf-q2_0c", "gguf-q4_0", "gguf-q8_0", "gguf-bf16"}) add(wide, target);
  const auto int4 = quantized_model(dir / "int4", small_spec(Architecture::llama, 64), {Grid::intn, 4, true, 32});
  const auto int8 = quantized_model(dir / "int8", small_spec(Architecture::qwen3, 64), {Grid::intn, 8, true, 0});
  add(int4, "gguf-q4_0");
  add(int8, "gguf-q8_0", "f16");
  write_model(dir / "plain", small_spec(Architecture::llama, 64), formats::DType::f32);
  for (const std::string target : {"gguf-q4_0", "gguf-q8_0", "gguf-bf16"}) add(dir / "plain", target, "f32");
  const auto result = run_command(python.string() + " " + script("gguf_peer.py") + arguments);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::ranges::count(result.out, '\n'), 14) << result.out;
}

TEST(Transformers, LoadsHfBf16WithTheLogitsOfTheCodes) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  const std::vector<TokenId> ids = {5, 100, 17, 42, 200, 256, 3, 77, 131, 5, 5, 250};
  std::string arguments = fmt::format(" {}", fmt::join(ids, ","));
  std::vector<fs::path> models;
  for (const auto architecture : kArchitectures) {
    const fs::path place = dir / std::string(arch::architecture_name(architecture));
    models.push_back(quantized_model(place, small_spec(architecture, 64), {Grid::seq, 2, true, 16}));
    run(models.back(), place / "hf", "hf-bf16");
    arguments += " " + (place / "hf").string() + " " + (place / "logits").string();
  }
  const auto result = run_command(python.string() + " " + script("transformers_peer.py") + arguments);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const auto& model : models) {
    const std::string bytes = testing::read_file(model.parent_path() / "logits");
    const auto* expected = reinterpret_cast<const float*>(bytes.data());
    const auto decoder = runtime::load_decoder(*quant::open_checkpoint(model), std::make_shared<ThreadPool>(2));
    const auto state = decoder->new_state();
    const auto [low, high] = std::minmax_element(expected, expected + bytes.size() / sizeof(float));
    const float tolerance = 1e-4f * (*high - *low);
    decoder->forward(std::vector<runtime::SequenceInput>{{state.get(), ids}}, runtime::LogitsFor::all,
                     [&](int64_t, int64_t position, std::span<const float> logits) {
                       for (size_t i = 0; i < logits.size(); ++i)
                         ASSERT_NEAR(logits[i], expected[static_cast<size_t>(position) * logits.size() + i], tolerance)
                             << model << " position " << position << " id " << i;
                     });
  }
}

arch::DecoderSpec with_window(arch::DecoderSpec spec) {
  for (auto& layer : spec.layers) layer.window = 64;  // longer than the test's text
  return spec;
}

/// Llama 3's RoPE scaling, with lengths that matter in the few tokens of a test.
void add_llama3_scaling(const fs::path& folder) {
  json config = json::parse(testing::read_file(folder / "config.json"));
  config.erase("rope_parameters");
  config["rope_theta"] = 10000.0;
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 16}};
  testing::write_file(folder / "config.json", config.dump());
}

TEST(LlamaCpp, LoadsRandomModelsOfEveryArchitectureAndAgreesInBf16) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  const std::vector<TokenId> prompt = {5, 100, 17, 42, 200, 256, 3, 77};
  json jobs = json::array();
  std::vector<fs::path> models;
  auto architectures = kArchitectures;
  architectures.push_back(Architecture::llama);  // once more, with scaled RoPE
  for (const auto architecture : architectures) {
    const fs::path place = dir / std::to_string(models.size());
    auto spec = small_spec(architecture, 256);
    if (architecture == Architecture::mistral) spec = with_window(spec);
    write_model(place / "plain", spec);
    if (models.size() == kTargets.size() * kArchitectures.size()) add_llama3_scaling(place / "plain");
    const fs::path codes = place / "codes";
    testing::quantize_model(place / "plain", codes, kSeqRow);
    for (const auto& target : kTargets) {
      run(codes, place / (target + ".gguf"), target);
      jobs.push_back({{"model", (place / (target + ".gguf")).string()}, {"prompt", prompt}, {"tokens", 6}, {"top", 8}});
      models.push_back(codes);
    }
  }
  const json results = llama_cpp(python, dir, jobs);
  ASSERT_EQ(results.size(), models.size());
  float of_llama = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    const json& steps = results[i].at("steps");
    ASSERT_GE(steps.size(), 1u) << jobs[i]["model"];
    const float difference = log_probability_difference(our_steps(models[i], prompt, steps), steps);
    if (i == 0) of_llama = difference;
    // With bf16 weights llama.cpp rounds activations to bf16 (2^-9 each), with block types to int8; logits here have a
    // standard deviation of 1.6, so that a wrong rotation or a lost bias would show as 1 or more.
    EXPECT_LT(difference, i % kTargets.size() == 0 ? std::min(0.06f, 3 * of_llama) : 0.6f) << jobs[i]["model"];
  }
}

TEST(LlamaCpp, ChoosesTheSameNextIdsOnTrainedWeights) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_DATA(reference, "models/ref-llama-15m");
  CRUMB_NEED_DATA(stories, "models/stories260K-hf");
  const TempDir dir;
  json jobs = json::array();
  std::vector<std::pair<fs::path, std::vector<TokenId>>> inputs;
  for (const auto& [model, text] : {std::pair{reference, "The first thing that the old man said was"},
                                    std::pair{stories, "Once upon a time, there was a little girl"}}) {
    const fs::path codes = dir / model.filename().string();
    testing::quantize_model(model, codes, kSeqRow);
    const auto prompt = quant::open_checkpoint(codes)->load_tokenizer()->encode(text, true);
    for (const auto& target : kTargets) {
      const fs::path out = dir / (model.filename().string() + "-" + target + ".gguf");
      run(codes, out, target);
      jobs.push_back({{"model", out.string()}, {"prompt", prompt}, {"tokens", 24}, {"top", 4}, {"context", 256}});
      inputs.emplace_back(out, prompt);
    }
  }
  const json results = llama_cpp(python, dir, jobs);
  for (size_t i = 0; i < results.size(); ++i) {
    const json& steps = results[i].at("steps");
    const auto agreement = next_id_agreement(our_steps(inputs[i].first, inputs[i].second, steps), steps);
    EXPECT_GE(agreement.compared, 8);
    EXPECT_EQ(agreement.equal, agreement.compared) << inputs[i].first;
  }
}

TEST(LlamaCpp, TokenizesAsWeDo) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  const std::vector<std::string> texts = {"Hello, world! It's 12345 o'clock.", "  two  spaces\n\n\tand tabs \r\n",
                                          "naïve façade 北京 🙂 ñ", "don't WE'LL x_y=3.14;",
                                          "<|endoftext|>the end"};
  write_model(dir / "bytes", small_spec(Architecture::llama, 64));
  std::vector<fs::path> models = {dir / "bytes"};
  for (const std::string name : {"models/ref-llama-15m", "models/stories260K-hf"})
    if (const auto model = testing::data(name); !model.empty()) models.push_back(model);
  for (const auto& name : {std::string("gpt2-hf-json"), std::string("llama2-hf-json")}) {
    const auto file = testing::data("tokenizers/" + name + "/tokenizer.json");
    if (file.empty()) continue;
    auto spec = small_spec(Architecture::llama, 32);
    spec.vocab_size = tokenizer::load_tokenizer(file)->vocab_size();
    write_model(dir / name, spec);
    fs::remove(dir / name / "tokenizer_config.json");
    fs::copy_file(file, dir / name / "tokenizer.json", fs::copy_options::overwrite_existing);
    json config = json::parse(testing::read_file(dir / name / "config.json"));
    config["bos_token_id"] = name == "gpt2-hf-json" ? 50256 : 1;
    config["eos_token_id"] = name == "gpt2-hf-json" ? 50256 : 2;
    testing::write_file(dir / name / "config.json", config.dump());
    models.push_back(dir / name);
  }
  json jobs = json::array();
  for (size_t i = 0; i < models.size(); ++i) {
    const fs::path out = dir / (std::to_string(i) + ".gguf");
    run(models[i], out, "gguf-bf16");
    jobs.push_back({{"model", out.string()}, {"texts", texts}});
  }
  const json results = llama_cpp(python, dir, jobs);
  for (size_t i = 0; i < models.size(); ++i) {
    const auto tokenizer = quant::open_checkpoint(models[i])->load_tokenizer();
    for (size_t t = 0; t < texts.size(); ++t)
      EXPECT_EQ(results[i].at("tokens")[t].get<std::vector<TokenId>>(), tokenizer->encode(texts[t], true))
          << models[i] << ": " << texts[t];
  }
}

}  // namespace
}  // namespace crumb::exporting
