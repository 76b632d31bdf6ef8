#include "quant/checkpoint.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "core/common/rng.h"
#include "core/formats/safetensors.h"
#include "kernels/seq.h"
#include "quant/codes_folder.h"
#include "quant/quantization_config.h"
#include "tests/quant/codes_model.h"
#include "tests/quant/hand_gguf.h"
#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TempDir;

/// A copy of a tiny model that a test may spoil: change tensors and configuration, then write().
struct Spoiled {
  struct Tensor {
    std::string name;
    formats::DType dtype;
    std::vector<int64_t> shape;
    std::vector<uint8_t> bytes;
  };
  std::vector<Tensor> tensors;
  nlohmann::json config;

  explicit Spoiled(const Path& folder) : config(nlohmann::json::parse(read_text(folder / "config.json"))) {
    const formats::SafetensorsReader reader(folder / "model.safetensors");
    for (const auto& info : reader.tensors()) {
      const auto bytes = reader.bytes(info);
      tensors.push_back({info.name, info.dtype, info.shape, {bytes.begin(), bytes.end()}});
    }
  }
  Tensor& at(const std::string& name) {
    for (auto& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    throw std::runtime_error("no tensor " + name);
  }
  void erase(const std::string& name) {
    std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.name == name; });
  }
  void write(const Path& folder) const {
    formats::SafetensorsWriter writer;
    for (const auto& tensor : tensors) writer.declare(tensor.name, tensor.dtype, tensor.shape);
    std::filesystem::create_directories(folder);
    writer.begin_folder(folder, int64_t{1} << 40);
    for (const auto& tensor : tensors) writer.write(tensor.bytes.data(), static_cast<int64_t>(tensor.bytes.size()));
    writer.finish();
    testing::write_file(folder / "config.json", config.dump());
  }
  /// What opening it and reading every tensor says.
  std::string complaint(const TempDir& dir) const {
    write(dir / "spoiled");
    return error_of([&] {
      const auto checkpoint = open_checkpoint(dir / "spoiled");
      for (const auto& tensor : checkpoint->tensors()) read_all(*checkpoint, tensor);
    });
  }
};

const std::string kUpProj = "model.layers.1.mlp.up_proj.weight";

// --- HF folders --------------------------------------------------------------------------------------------------

TEST(HfCheckpoint, ListsTheTensorsOfTheTableWithTheirTypes) {
  const auto checkpoint = open_checkpoint(tiny_model("llama"));
  EXPECT_EQ(checkpoint->kind(), CheckpointKind::hf);
  const auto table = arch::tensor_table(checkpoint->spec());
  ASSERT_EQ(checkpoint->tensors().size(), table.size());
  int64_t bytes = 0;
  for (size_t i = 0; i < table.size(); ++i) {
    const auto& tensor = checkpoint->tensors()[i];
    EXPECT_EQ(tensor.desc.hf_name, table[i].hf_name);
    EXPECT_EQ(tensor.dtype, "F16");
    EXPECT_EQ(tensor.stored_bytes, 2 * table[i].elements());
    EXPECT_FALSE(tensor.format.has_value());
    bytes += tensor.stored_bytes;
  }
  EXPECT_EQ(checkpoint->stored_bytes(), bytes);
}

TEST(HfCheckpoint, RowsReadInBlocksEqualTheStoredNumbers) {
  const auto checkpoint = open_checkpoint(tiny_model("qwen2"));
  const auto& tensor = checkpoint->tensor(kUpProj);
  const formats::SafetensorsReader reader(tiny_model("qwen2"));
  const auto bytes = reader.bytes(reader.at(kUpProj));
  std::vector<float> rows(3 * 32);
  checkpoint->read_rows(tensor, 5, 8, rows.data());
  for (size_t i = 0; i < rows.size(); ++i) {
    uint16_t stored = 0;
    std::memcpy(&stored, bytes.data() + 2 * (5 * 32 + i), 2);
    EXPECT_EQ(rows[i], formats::from_bf16(stored));
  }
}

TEST(HfCheckpoint, NamesATensorThatIsMissing) {
  const TempDir dir;
  Spoiled model(tiny_model("llama"));
  model.erase(kUpProj);
  EXPECT_THAT(model.complaint(dir), HasSubstr("tensor " + kUpProj + " is missing"));
}

TEST(HfCheckpoint, NamesATensorOfAnotherShape) {
  const TempDir dir;
  Spoiled model(tiny_model("llama"));
  model.at(kUpProj).shape = {32, 48};
  EXPECT_THAT(model.complaint(dir),
              HasSubstr("tensor " + kUpProj + " has shape [32, 48], the configuration asks for [48, 32]"));
}

TEST(HfCheckpoint, NamesATensorWithNaNOrInfinity) {
  for (const uint16_t bad : {0x7e00, 0xfc00}) {  // halves
    const TempDir dir;
    Spoiled model(tiny_model("llama"));
    std::memcpy(model.at(kUpProj).bytes.data() + 100, &bad, 2);
    EXPECT_THAT(model.complaint(dir), HasSubstr("tensor " + kUpProj + " holds NaN or infinite values"));
  }
}

TEST(HfCheckpoint, RefusesATensorThatNothingWouldRead) {
  const TempDir dir;
  Spoiled model(tiny_model("llama_bias"));
  model.config["attention_bias"] = false;
  EXPECT_THAT(model.complaint(dir), HasSubstr(".bias is not part of a llama model of this configuration"));
}

TEST(HfCheckpoint, PassesOverTheHeadOfATiedModelAndOldRotaryBuffers) {
  const TempDir dir;
  Spoiled model(tiny_model("qwen3"));
  auto head = model.at("model.embed_tokens.weight");
  head.name = "lm_head.weight";
  model.tensors.push_back(head);
  model.tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", formats::DType::f32, {1}, {0, 0, 0, 0}});
  EXPECT_EQ(model.complaint(dir), "");
}

/// What opening a folder says on stderr; `out`: the checkpoint.
std::string words_of_opening(const Path& folder, std::unique_ptr<Checkpoint>& out) {
  ::testing::internal::CaptureStderr();
  out = open_checkpoint(folder);
  return ::testing::internal::GetCapturedStderr();
}

/// A tied model that also stores a head, of 1.5 times the embedding.
Spoiled with_other_head(const std::string& name) {
  Spoiled model(tiny_model(name));
  auto head = model.at("model.embed_tokens.weight");
  head.name = "lm_head.weight";
  std::vector<float> values(head.bytes.size() / 4);
  std::memcpy(values.data(), head.bytes.data(), head.bytes.size());
  for (float& value : values) value *= 1.5f;
  std::memcpy(head.bytes.data(), values.data(), head.bytes.size());
  model.tensors.push_back(head);
  return model;
}

TEST(HeadOfATiedModel, IsUsedWhereItDiffersFromTheEmbeddingAndSaid) {
  const TempDir dir;
  const auto model = with_other_head("llama_tied");  // stored as float32
  ASSERT_EQ(model.config.at("tie_word_embeddings"), true);
  model.write(dir / "model");
  std::unique_ptr<Checkpoint> checkpoint;
  EXPECT_THAT(words_of_opening(dir / "model", checkpoint),
              ::testing::AllOf(HasSubstr("warning: "), HasSubstr("tie_word_embeddings: true"),
                               HasSubstr("lm_head.weight is stored and differs from model.embed_tokens.weight")));
  EXPECT_FALSE(checkpoint->spec().tied_head);
  EXPECT_EQ(checkpoint->hf_config().at("tie_word_embeddings"), false);
  const auto head = read_all(*checkpoint, checkpoint->tensor("lm_head.weight"));
  auto expected = read_all(*checkpoint, checkpoint->tensor("model.embed_tokens.weight"));
  for (float& value : expected) value *= 1.5f;
  EXPECT_EQ(head, expected);
  EXPECT_EQ(words_of_opening(dir / "model", checkpoint), "") << "said once";
}

TEST(HeadOfATiedModel, ThatEqualsTheEmbeddingIsTheEmbedding) {
  const TempDir dir;
  Spoiled model(tiny_model("llama_tied"));
  auto head = model.at("model.embed_tokens.weight");
  head.name = "lm_head.weight";
  model.tensors.push_back(head);
  model.write(dir / "model");
  std::unique_ptr<Checkpoint> checkpoint;
  EXPECT_EQ(words_of_opening(dir / "model", checkpoint), "");
  EXPECT_TRUE(checkpoint->spec().tied_head);
}

TEST(HeadOfATiedModel, StandsForAnEmbeddingThatIsNotStored) {
  const TempDir dir;
  Spoiled model(tiny_model("llama_tied"));
  const auto expected = open_checkpoint(tiny_model("llama_tied"));
  model.at("model.embed_tokens.weight").name = "lm_head.weight";
  model.write(dir / "model");
  std::unique_ptr<Checkpoint> checkpoint;
  EXPECT_EQ(words_of_opening(dir / "model", checkpoint), "");
  EXPECT_TRUE(checkpoint->spec().tied_head);
  const auto& tensor = checkpoint->tensor("model.embed_tokens.weight");
  EXPECT_EQ(read_all(*checkpoint, tensor), read_all(*expected, expected->tensor("model.embed_tokens.weight")));
}

TEST(HeadOfATiedModel, OfAnotherShapeIsRefused) {
  const TempDir dir;
  auto model = with_other_head("llama_tied");
  auto& head = model.at("lm_head.weight");
  std::swap(head.shape[0], head.shape[1]);
  EXPECT_THAT(model.complaint(dir), HasSubstr("tensor lm_head.weight has shape ["));
}

TEST(HeadOfATiedModel, TravelsIntoACodesFolder) {
  const TempDir dir;
  with_other_head("llama_tied").write(dir / "model");
  const auto base = open_checkpoint(dir / "model");
  CodesSource source;
  source.rows = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end, float* out) {
    base->read_rows(base->tensor(desc.hf_name), begin, end, out);
  };
  std::filesystem::create_directories(dir / "codes");
  write_codes_folder(dir / "codes", *base, source, {});
  std::unique_ptr<Checkpoint> codes;
  EXPECT_EQ(words_of_opening(dir / "codes", codes), "");
  EXPECT_FALSE(codes->spec().tied_head);
  EXPECT_EQ(read_all(*codes, codes->tensor("lm_head.weight")), read_all(*base, base->tensor("lm_head.weight")));

  // A codes folder that contradicts itself is judged in the same way.
  auto config = nlohmann::json::parse(read_text(dir / "codes" / "config.json"));
  config["tie_word_embeddings"] = true;
  testing::write_file(dir / "codes" / "config.json", config.dump());
  EXPECT_THAT(words_of_opening(dir / "codes", codes), HasSubstr("the stored head is used"));
  EXPECT_FALSE(codes->spec().tied_head);
}

TEST(HfCheckpoint, AnUntiedModelWithoutAHeadIsRefusedWithTheWayOut) {
  const TempDir dir;
  Spoiled model(tiny_model("llama"));
  ASSERT_EQ(model.config.at("tie_word_embeddings"), false);
  model.erase("lm_head.weight");
  EXPECT_THAT(model.complaint(dir), ::testing::AllOf(HasSubstr("tensor lm_head.weight is missing"),
                                                     HasSubstr("config.json must say tie_word_embeddings: true")));
}

TEST(HfCheckpoint, NamesTheKeysThatAShapeContradicts) {
  const auto complaint = [](const char* key, const nlohmann::json& value) {
    const TempDir dir;
    Spoiled model(tiny_model("llama"));
    model.config[key] = value;
    return model.complaint(dir);
  };
  EXPECT_THAT(complaint("intermediate_size", 40),
              HasSubstr("mlp.gate_proj.weight has shape [48, 32], the configuration asks for [40, 32] "
                        "(intermediate_size, hidden_size)"));
  EXPECT_THAT(complaint("vocab_size", 7), HasSubstr("(vocab_size, hidden_size)"));
  EXPECT_THAT(complaint("num_attention_heads", 2), HasSubstr("(num_attention_heads x head_dim, hidden_size)"));
}

TEST(HfCheckpoint, NamesTheProgramWhoseQuantizationItCannotRead) {
  const TempDir dir;
  Spoiled model(tiny_model("llama"));
  model.config["quantization_config"] = {{"quant_method", "gptq"}, {"bits", 4}};
  EXPECT_THAT(model.complaint(dir),
              HasSubstr("quantized by gptq, which Crumb does not read; give the unquantized model"));
  model.config["quantization_config"] = {{"quant_method", "compressed-tensors"}};
  EXPECT_THAT(model.complaint(dir), HasSubstr("quantized by compressed-tensors"));
  model.config["quantization_config"] = {{"quant_method", "crumb"}, {"version", 3}};
  EXPECT_THAT(model.complaint(dir), HasSubstr("version 3; this program reads 1 and 2"));
  model.config.erase("quantization_config");
  model.config["quantization"] = {{"bits", 4}, {"group_size", 32}};
  EXPECT_THAT(model.complaint(dir), HasSubstr("quantized by MLX"));
}

TEST(OpenCheckpoint, SaysWhatAPathShouldBe) {
  const TempDir dir;
  EXPECT_THAT(error_of([&] { open_checkpoint(dir / "nothing"); }), HasSubstr("nothing: no such file or folder"));
  EXPECT_THAT(error_of([&] { open_checkpoint(dir.path()); }), HasSubstr("there is no config.json in this folder"));
  EXPECT_THAT(error_of([&] { open_checkpoint(tiny_model("llama") / "model.safetensors"); }),
              HasSubstr("give the folder that holds it"));
  testing::write_file(dir / "text", "hello");
  EXPECT_THAT(error_of([&] { open_checkpoint(dir / "text"); }), HasSubstr("neither a GGUF file nor a folder"));
  testing::write_file(dir / "config.json", "{\"model_type\": ");
  EXPECT_THAT(error_of([&] { open_checkpoint(dir.path()); }), HasSubstr("config.json:1:16: not valid JSON: "));
}

TEST(OpenCheckpoint, CallsAGitLfsPointerSo) {
  const TempDir dir;
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
  testing::write_file(dir / "model.gguf", pointer);
  EXPECT_THAT(error_of([&] { open_checkpoint(dir / "model.gguf"); }),
              HasSubstr("model.gguf: a Git LFS pointer, not the file"));
  std::filesystem::copy(tiny_model("llama"), dir / "folder");
  testing::write_file(dir / "folder" / "model.safetensors", pointer);
  EXPECT_THAT(error_of([&] { open_checkpoint(dir / "folder"); }),
              HasSubstr("model.safetensors: a Git LFS pointer, not the file"));
}

TEST(OpenCheckpoint, FoldersOfOtherOriginOpenOrAreRefusedWithAReason) {
  const std::pair<const char*, const char*> fixtures[] = {{"tiny_llama3", ""},
                                                          {"tiny_mistral", ""},
                                                          {"tiny_qwen3", ""},
                                                          {"tiny_llama3_tied", "quantized by MLX"},
                                                          {"tiny_mistral_tied", "quantized by MLX"},
                                                          {"tiny_qwen3_tied", "quantized by MLX"},
                                                          {"tiny_qwen3_sharded", "quantized by MLX"},
                                                          {"tiny_gemma3", "model_type 'gemma3_text' is not supported"},
                                                          {"tiny_gemma4", "model_type 'gemma4' is not supported"},
                                                          {"tiny_qwen3_5", "model_type 'qwen3_5' is not supported"},
                                                          {"tiny_qwen3_5_tied", "quantized by MLX"}};
  for (const auto& [name, reason] : fixtures) {
    CRUMB_NEED_DATA(folder, std::string("vectors/tiny-hf-fixtures/") + name);
    const auto message = error_of([&] {
      const auto checkpoint = open_checkpoint(folder);
      for (const auto& tensor : checkpoint->tensors()) read_all(*checkpoint, tensor);
    });
    EXPECT_THAT(message, HasSubstr(reason)) << name;
    EXPECT_EQ(message.empty(), std::string(reason).empty()) << name << ": " << message;
  }
}

// --- Codes and scales --------------------------------------------------------------------------------------------

TEST(CodesCheckpoint, ReadsBackExactlyTheCodesAndScalesThatWereWritten) {
  const TempDir dir;
  const CodesModel model;
  write_codes_folder(dir.path(), *model.base, model.source(), {"lm_head"});
  const auto checkpoint = open_checkpoint(dir.path());
  EXPECT_EQ(checkpoint->kind(), CheckpointKind::codes);
  int quantized = 0;
  for (const auto& tensor : checkpoint->tensors()) {
    if (tensor.desc.role != arch::TensorRole::linear) continue;
    ++quantized;
    const auto& whole = model.tensors.at(tensor.desc.hf_name);
    ASSERT_EQ(tensor.format, whole.format);
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, whole.rows}, {3, 7}}) {
      const auto expected = model.block(tensor.desc.hf_name, begin, end);
      const auto actual = checkpoint->read_codes(tensor, begin, end);
      EXPECT_EQ(actual.codes, expected.codes);
      EXPECT_EQ(actual.scales, expected.scales);
      EXPECT_EQ(actual.zero_points, expected.zero_points);
      EXPECT_EQ(actual.minima, expected.minima);
      std::vector<float> values(static_cast<size_t>((end - begin) * whole.cols)), dequantized(values.size());
      checkpoint->read_rows(tensor, begin, end, values.data());
      expected.dequantize(dequantized.data());
      EXPECT_EQ(values, dequantized);
    }
  }
  EXPECT_EQ(quantized, 14);
}

TEST(CodesCheckpoint, UntouchedMatricesKeepTheirTypeAndSmallTensorsAreRoundedToBf16) {
  const TempDir dir;
  Spoiled float_model(tiny_model("llama_tied"));  // stored as float32
  float_model.write(dir / "base");
  const auto base = open_checkpoint(dir / "base");
  CodesSource source;
  source.rows = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end, float* out) {
    base->read_rows(base->tensor(desc.hf_name), begin, end, out);
  };
  std::filesystem::create_directories(dir / "codes");
  write_codes_folder(dir / "codes", *base, source, {});
  const auto checkpoint = open_checkpoint(dir / "codes");
  for (const auto& tensor : checkpoint->tensors()) {
    EXPECT_EQ(tensor.dtype, "F32");
    auto expected = read_all(*base, base->tensor(tensor.desc.hf_name));
    if (tensor.desc.role == arch::TensorRole::norm) {
      for (auto& value : expected) value = formats::round_to_bf16(value);
    }
    EXPECT_EQ(read_all(*checkpoint, tensor), expected) << tensor.desc.hf_name;
  }
  const auto half = open_checkpoint(tiny_model("llama_bias"));
  std::filesystem::create_directories(dir / "half");
  const CodesModel model;
  write_codes_folder(dir / "half", *half, model.source(), {});
  EXPECT_EQ(open_checkpoint(dir / "half")->tensor("model.embed_tokens.weight").dtype, "BF16");
}

TEST(CodesCheckpoint, ConfigurationNamesTheFormatsAndTheCompanionsTravelAlong) {
  const TempDir dir;
  std::filesystem::copy(tiny_model("llama_bias"), dir / "base");
  testing::write_file(dir / "base" / "tokenizer.json", "{}");
  testing::write_file(dir / "base" / "LICENSE.txt", "free");
  testing::write_file(dir / "base" / "optimizer.pt", "not part of the model");
  CodesModel model;
  model.base = open_checkpoint(dir / "base");
  std::filesystem::create_directories(dir / "codes");
  write_codes_folder(dir / "codes", *model.base, model.source(), {"lm_head", "embed_tokens"});
  EXPECT_EQ(testing::read_file(dir / "codes" / "tokenizer.json"), "{}");
  EXPECT_EQ(testing::read_file(dir / "codes" / "LICENSE.txt"), "free");
  EXPECT_FALSE(std::filesystem::exists(dir / "codes" / "optimizer.pt"));

  const auto config = nlohmann::json::parse(read_text(dir / "codes" / "config.json"));
  const auto& quantization = config.at("quantization_config");
  EXPECT_EQ(quantization.at("quant_method"), "crumb");
  EXPECT_EQ(quantization.at("version"), 1);
  EXPECT_EQ(quantization.at("grid"), "seq");  // the most frequent format
  EXPECT_EQ(quantization.at("group_size"), 0);
  EXPECT_EQ(quantization.at("ignore"), nlohmann::json({"lm_head", "embed_tokens"}));
  EXPECT_EQ(quantization.at("modules").size(), 8u);
  EXPECT_EQ(quantization.at("modules").at("model.layers.1.self_attn.q_proj").at("symmetric"), false);
  EXPECT_FALSE(quantization.at("modules").at("model.layers.1.self_attn.q_proj").contains("zero_point"));
  EXPECT_EQ(quantization.at("modules").at("model.layers.1.self_attn.v_proj").at("zero_point"), "float");
  EXPECT_EQ(config.at("hidden_size"), 32);
}

// What a module leaves out is as in all the others, and a zero point is left out mostly.
TEST(CodesCheckpoint, ModulesBesideFloatZeroPointsSayWhichTheyHave) {
  const QuantFormat floats{Grid::intn, 4, false, 0, false, true}, integers{Grid::intn, 4, false, 0},
      symmetric{Grid::intn, 4, true, 0};
  const auto config = make_quantization_config(
      {{"a", floats}, {"b", floats}, {"c", floats}, {"d", integers}, {"e", symmetric}, {"f", {}}}, {});
  EXPECT_EQ(config.at("zero_point"), "float");
  const nlohmann::json whole = {{"quantization_config", config}};
  EXPECT_EQ(format_of_module(whole, "a", "here"), floats);
  EXPECT_EQ(format_of_module(whole, "d", "here"), integers);
  EXPECT_EQ(format_of_module(whole, "e", "here"), symmetric);
  EXPECT_EQ(format_of_module(whole, "f", "here"), QuantFormat{});
}

TEST(CodesCheckpoint, RefusesMinimaThatCannotBe) {
  const TempDir dir;
  const CodesModel model;
  std::filesystem::create_directories(dir / "good");
  write_codes_folder(dir / "good", *model.base, model.source(), {});
  const std::string name = "model.layers.1.self_attn.v_proj.weight_minimum";
  for (const auto& [value, word] : {std::pair{NAN, "nan"}, {INFINITY, "inf"}}) {
    Spoiled spoiled(dir / "good");
    std::memcpy(spoiled.at(name).bytes.data() + 4, &value, 4);
    EXPECT_THAT(spoiled.complaint(dir), HasSubstr("tensor " + name + " holds the minimum " + word));
  }
  Spoiled without(dir / "good");
  without.erase(name);
  EXPECT_THAT(without.complaint(dir), HasSubstr("tensor " + name + " is missing"));
  Spoiled truncated(dir / "good");
  truncated.at(name).bytes.resize(truncated.at(name).bytes.size() - 4);
  --truncated.at(name).shape[0];
  EXPECT_THAT(truncated.complaint(dir),
              HasSubstr("tensor " + name + " has shape [15, 1], the configuration asks for [16, 1]"));
  Spoiled integers(dir / "good");
  integers.at(name).dtype = formats::DType::i32;
  EXPECT_THAT(integers.complaint(dir), HasSubstr("tensor " + name + " is I32, not F32"));
  Spoiled contradiction(dir / "good");
  auto& module = contradiction.config["quantization_config"]["modules"]["model.layers.1.self_attn.v_proj"];
  module["symmetric"] = true;
  EXPECT_THAT(contradiction.complaint(dir), HasSubstr("zero_point: float with symmetric: true does not exist"));
  module["symmetric"] = false;
  module["zero_point"] = "half";
  EXPECT_THAT(contradiction.complaint(dir), HasSubstr("zero_point: half with symmetric: false does not exist"));
}

TEST(CodesCheckpoint, RefusesScalesAndShapesThatCannotBe) {
  const TempDir dir;
  const CodesModel model;
  std::filesystem::create_directories(dir / "good");
  write_codes_folder(dir / "good", *model.base, model.source(), {});
  const float negative = -1.0f;
  Spoiled bad_scale(dir / "good");
  std::memcpy(bad_scale.at(kUpProj + "_scale").bytes.data(), &negative, 4);
  EXPECT_THAT(bad_scale.complaint(dir), HasSubstr("tensor " + kUpProj + "_scale holds the scale -1"));
  Spoiled no_scale(dir / "good");
  no_scale.erase(kUpProj + "_scale");
  EXPECT_THAT(no_scale.complaint(dir), HasSubstr("tensor " + kUpProj + "_scale is missing"));
  Spoiled bits(dir / "good");
  bits.config["quantization_config"]["bits"] = 4;
  EXPECT_THAT(bits.complaint(dir), HasSubstr("grid seq with 4 bits does not exist"));
  Spoiled grid(dir / "good");
  grid.config["quantization_config"]["grid"] = "fp4";
  EXPECT_THAT(grid.complaint(dir), HasSubstr("grid 'fp4' is not known"));
  Spoiled symmetry(dir / "good");
  symmetry.config["quantization_config"]["symmetric"] = false;
  EXPECT_THAT(symmetry.complaint(dir), HasSubstr("grid seq is symmetric, symmetric: false does not exist"));
  Spoiled group(dir / "good");
  group.config["quantization_config"]["group_size"] = 5;
  EXPECT_THAT(group.complaint(dir), HasSubstr("group_size 5 does not divide"));
}

TEST(CodesCheckpoint, TakesNumbersOnlyAsWhatTheyAreAndNullAsAbsent) {
  const TempDir dir;
  const CodesModel model;
  std::filesystem::create_directories(dir / "good");
  write_codes_folder(dir / "good", *model.base, model.source(), {});
  const auto complaint = [&](const char* key, const nlohmann::json& value) {
    Spoiled spoiled(dir / "good");
    spoiled.config["quantization_config"][key] = value;
    return spoiled.complaint(dir);
  };
  EXPECT_THAT(complaint("bits", 2.7), HasSubstr("config.json: quantization_config: bits must be an integer, not 2.7"));
  EXPECT_THAT(complaint("bits", 1e308), HasSubstr("bits must be an integer, not 1e+308"));
  EXPECT_THAT(complaint("bits", int64_t{1} << 40), HasSubstr("bits is 1099511627776, which is out of range"));
  EXPECT_THAT(complaint("bits", true), HasSubstr("bits must be an integer, not true"));
  EXPECT_THAT(complaint("bits", nullptr), HasSubstr("quantization_config: bits is missing"));
  EXPECT_THAT(complaint("version", 1.5), HasSubstr("version must be an integer, not 1.5"));
  EXPECT_THAT(complaint("modules", nlohmann::json::array()), HasSubstr("modules: not a JSON object"));
  Spoiled without(dir / "good");
  without.config["quantization_config"].erase("modules");
  EXPECT_EQ(complaint("modules", nullptr), without.complaint(dir));
  EXPECT_EQ(complaint("symmetric", nullptr), "");
  Spoiled null_beside(dir / "good");
  null_beside.config["compression_config"] = nullptr;
  EXPECT_EQ(null_beside.complaint(dir), "");
}

// --- GGUF --------------------------------------------------------------------------------------------------------

TEST(GgufCheckpoint, GivesTheTensorsUnderTheirHfNamesAndInHfOrder) {
  for (const char* name : {"llama", "llama_bias", "llama3", "llama_linear", "mistral", "qwen2", "qwen2_window", "qwen3",
                           "qwen3_bias", "hunyuan", "hunyuan_untied"}) {
    const TempDir dir;
    const auto hf = open_checkpoint(tiny_model(name));
    testing::write_f32_gguf(*hf, dir / "model.gguf");
    const auto gguf = open_checkpoint(dir / "model.gguf");
    EXPECT_EQ(gguf->kind(), CheckpointKind::gguf);
    ASSERT_EQ(gguf->tensors().size(), hf->tensors().size());
    for (const auto& tensor : gguf->tensors()) {
      EXPECT_EQ(tensor.dtype, "f32");
      EXPECT_EQ(read_all(*gguf, tensor), read_all(*hf, hf->tensor(tensor.desc.hf_name))) << tensor.desc.hf_name;
    }
  }
}

TEST(GgufCheckpoint, ReadsBlocksOfPermutedRows) {
  const TempDir dir;
  const auto hf = open_checkpoint(tiny_model("llama"));
  testing::write_f32_gguf(*hf, dir / "model.gguf");
  const auto gguf = open_checkpoint(dir / "model.gguf");
  const std::string name = "model.layers.0.self_attn.q_proj.weight";
  std::vector<float> expected(7 * 32), actual(expected.size());
  hf->read_rows(hf->tensor(name), 6, 13, expected.data());
  gguf->read_rows(gguf->tensor(name), 6, 13, actual.data());
  gguf->release_rows(gguf->tensor(name), 6, 13);
  EXPECT_EQ(actual, expected);
}

// The tiny model with all its matrices in one type of 32-weight blocks: random bytes whose halves are finite.
Path write_in_type(const TempDir& dir, formats::TensorType type) {
  const auto hf = open_checkpoint(tiny_model("llama"));
  formats::GgufWriter writer;
  arch::set_gguf_metadata(hf->spec(), writer);
  const auto type_of = [type](const StoredTensor& t) {
    const bool fits = t.desc.shape.size() == 2 && t.desc.cols() % formats::block_size(type) == 0;
    return fits ? type : formats::TensorType::f32;
  };
  for (const auto& t : hf->tensors()) writer.declare(t.desc.gguf.name, type_of(t), t.desc.shape);
  writer.begin(dir / "model.gguf");
  for (const auto& t : hf->tensors()) {
    const Rng rng(5, hash_name(t.desc.hf_name));
    std::vector<uint8_t> bytes(static_cast<size_t>(t.desc.rows() * formats::row_bytes(type_of(t), t.desc.cols())));
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(rng.bits(i) & 0x3b);
    writer.write(bytes.data(), static_cast<int64_t>(bytes.size()));
  }
  writer.finish();
  writer.commit();
  return dir / "model.gguf";
}

TEST(GgufCheckpoint, ReadsTheBlockTypesOfStockFiles) {
  using formats::TensorType;
  for (const auto type :
       {TensorType::q4_1, TensorType::q5_0, TensorType::q5_1, TensorType::iq4_nl, TensorType::mxfp4}) {
    const TempDir dir;
    const auto path = write_in_type(dir, type);
    const auto model = open_checkpoint(path);
    const formats::GgufReader file(path);
    for (const auto& t : model->tensors()) {
      const auto& stored = file.tensor(t.desc.gguf.name);
      EXPECT_EQ(t.dtype, stored.type_name);
      std::vector<float> expected(static_cast<size_t>(t.desc.elements()));
      const int64_t cols = t.desc.cols(), head_dim = t.desc.permuted_head_dim;
      for (int64_t row = 0; row < t.desc.rows(); ++row) {
        const int64_t to = head_dim > 0 ? arch::hf_row_of_gguf_row(row, head_dim) : row;
        file.read_rows(stored, row, row + 1, expected.data() + to * cols);
      }
      EXPECT_EQ(read_all(*model, t), expected) << t.desc.gguf.name;
    }
  }
}

TEST(GgufCheckpoint, ItsConfigurationDescribesTheSameModel) {
  const TempDir dir;
  const auto hf = open_checkpoint(tiny_model("mistral"));
  testing::write_f32_gguf(*hf, dir / "model.gguf");
  const auto config = open_checkpoint(dir / "model.gguf")->hf_config();
  EXPECT_EQ(config.at("model_type"), "mistral");  // a llama with a window
  EXPECT_EQ(config.at("sliding_window"), 7);
  EXPECT_EQ(config.at("head_dim"), 16);
}

// --- Vocabulary --------------------------------------------------------------------------------------------------

class CountingTokenizer : public tokenizer::Tokenizer {
 public:
  explicit CountingTokenizer(int64_t size) : size_(size) {}
  std::vector<tokenizer::TokenId> encode(std::string_view, bool, bool) const override { return {}; }
  std::string decode(const std::vector<tokenizer::TokenId>&, bool) const override { return ""; }
  std::string token_bytes(tokenizer::TokenId) const override { return ""; }
  std::string piece(tokenizer::TokenId) const override { return ""; }
  std::optional<tokenizer::TokenId> find_piece(std::string_view) const override { return std::nullopt; }
  int64_t vocab_size() const override { return size_; }
  const tokenizer::SpecialIds& special() const override { return special_; }
  bool is_special(tokenizer::TokenId) const override { return false; }
  void set_gguf_metadata(int64_t, formats::GgufWriter&) const override {}
  void write_hf_files(const Path&) const override {}
  std::string chat_template() const override { return ""; }

 private:
  int64_t size_;
  tokenizer::SpecialIds special_;
};

TEST(CheckVocabulary, WantsARowForEveryToken) {
  const auto checkpoint = open_checkpoint(tiny_model("llama"));
  EXPECT_NO_THROW(check_vocabulary(*checkpoint, CountingTokenizer(96)));
  EXPECT_NO_THROW(check_vocabulary(*checkpoint, CountingTokenizer(90)));  // rows to spare are common
  EXPECT_THAT(error_of([&] { check_vocabulary(*checkpoint, CountingTokenizer(97)); }),
              HasSubstr("the tokenizer has 97 tokens, but the embedding has only 96 rows"));
}

}  // namespace
}  // namespace crumb::quant
