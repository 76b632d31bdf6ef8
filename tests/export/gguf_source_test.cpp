// A GGUF as the model that is exported, quantized or trained: what comes out is what its folder would give.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "core/formats/gguf.h"
#include "export/export.h"
#include "tests/arch/spec_compare.h"
#include "tests/export/test_models.h"
#include "tests/testing/testing.h"

namespace crumb::exporting {
namespace {

using arch::Architecture;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::run_crumb;
using testing::small_spec;
using testing::TempDir;
using testing::write_model;
namespace fs = std::filesystem;

ExportResult run(const fs::path& model, const fs::path& output, const std::string& target) {
  return export_checkpoint(*quant::open_checkpoint(model), output, {target, "", "", false, 2});
}

const std::vector<std::string> kTexts = {"the the other\n\n  Three hundred 12345",
                                         "<|endoftext|>the caf\xc3\xa9 \xf0\x9f\x98\x80", ""};

class GgufSource : public ::testing::TestWithParam<Architecture> {};

TEST_P(GgufSource, GivesTheFolderItWasMadeFromAgain) {
  const TempDir dir;
  auto spec = small_spec(GetParam(), 64);
  if (GetParam() == Architecture::mistral) {
    for (auto& layer : spec.layers) layer.window = 24;  // a llama with a window is a mistral
  }
  write_model(dir / "model", spec);
  run(dir / "model", dir / "folder", "hf-bf16");
  run(dir / "model", dir / "model.gguf", "gguf-bf16");
  run(dir / "model.gguf", dir / "again", "hf-bf16");

  const auto expected = quant::open_checkpoint(dir / "folder"), actual = quant::open_checkpoint(dir / "again");
  EXPECT_EQ(actual->spec().architecture, expected->spec().architecture);
  arch::expect_same_spec(actual->spec(), expected->spec(), 1e-7);
  ASSERT_EQ(actual->tensors().size(), expected->tensors().size());
  for (const auto& tensor : expected->tensors()) {
    const auto& other = actual->tensor(tensor.desc.hf_name);
    EXPECT_EQ(other.dtype, tensor.dtype) << tensor.desc.hf_name;
    EXPECT_EQ(quant::read_all(*actual, other), quant::read_all(*expected, tensor)) << tensor.desc.hf_name;
  }
  const auto ours = actual->load_tokenizer(), theirs = expected->load_tokenizer();
  EXPECT_EQ(ours->special().bos, theirs->special().bos);
  EXPECT_EQ(ours->special().eos, theirs->special().eos);
  for (const auto& text : kTexts) EXPECT_EQ(ours->encode(text, true), theirs->encode(text, true)) << text;
}

INSTANTIATE_TEST_SUITE_P(Architectures, GgufSource,
                         ::testing::Values(Architecture::llama, Architecture::mistral, Architecture::qwen2,
                                           Architecture::qwen3, Architecture::hunyuan_v1_dense),
                         [](const auto& test) { return std::string(arch::architecture_name(test.param)); });

TEST(GgufSourceVerb, NamesTheBlockTypesThatStandForFullPrecision) {
  const TempDir dir;
  write_model(dir / "model", small_spec(Architecture::llama, 64));
  run(dir / "model", dir / "plain.gguf", "gguf-bf16");
  run(dir / "model", dir / "eight.gguf", "gguf-q8_0");
  const auto plain = run_crumb("export " + (dir / "plain.gguf").string() + " --to hf-bf16 -o " + (dir / "a").string());
  EXPECT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_EQ(plain.err.find("full-precision"), std::string::npos) << plain.err;
  const auto eight = run_crumb("export " + (dir / "eight.gguf").string() + " --to hf-bf16 -o " + (dir / "b").string());
  EXPECT_EQ(eight.exit_code, 0) << eight.err;
  EXPECT_THAT(eight.err, AllOf(HasSubstr("eight.gguf: its linears are stored as q8_0"), HasSubstr("full-precision")));
}

/// One of the two parts of a split model: its share of the tensors, and the metadata in the first.
void write_part(const formats::GgufReader& whole, uint16_t number, const fs::path& path) {
  const size_t half = whole.tensors().size() / 2;
  const size_t begin = number == 0 ? 0 : half, end = number == 0 ? half : whole.tensors().size();
  formats::GgufWriter writer;
  if (number == 0)
    for (const auto& [key, value] : whole.metadata()) writer.set(key, value);
  writer.set("split.no", {number});
  writer.set("split.count", {uint16_t{2}});
  writer.set("split.tensors.count", {static_cast<int32_t>(whole.tensors().size())});
  for (size_t i = begin; i < end; ++i)
    writer.declare(whole.tensors()[i].name, whole.tensors()[i].type, whole.tensors()[i].shape);
  writer.begin(path);
  for (size_t i = begin; i < end; ++i) writer.write(whole.bytes(whole.tensors()[i]).data(), whole.tensors()[i].bytes);
  writer.finish();
  writer.commit();
}

TEST(GgufSourceVerb, ReplacesNoPartOfTheModelItReads) {
  const TempDir dir;
  write_model(dir / "model", small_spec(Architecture::llama, 64));
  run(dir / "model", dir / "whole.gguf", "gguf-bf16");
  const formats::GgufReader whole(dir / "whole.gguf");
  const fs::path first = dir / "a-00001-of-00002.gguf", second = dir / "a-00002-of-00002.gguf";
  write_part(whole, 0, first);
  write_part(whole, 1, second);
  const std::string before = testing::read_file(second);
  const auto result = run_crumb("--force export " + first.string() + " --to gguf-q8_0 -o " + second.string());
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("a-00002-of-00002.gguf, which is read; choose another output"));
  EXPECT_TRUE(testing::read_file(second) == before);
  run(first, dir / "joined", "hf-bf16");
  run(dir / "model", dir / "folder", "hf-bf16");
  EXPECT_TRUE(testing::read_file(dir / "joined/model.safetensors") ==
              testing::read_file(dir / "folder/model.safetensors"));
}

TEST(GgufSourceVerb, KeepsTheChatTemplate) {
  const TempDir dir;
  write_model(dir / "model", small_spec(Architecture::llama, 64));
  auto config = nlohmann::json::parse(testing::read_file(dir / "model/tokenizer_config.json"));
  config["chat_template"] = "{% for m in messages %}{{ m['content'] }}{% endfor %}";
  testing::write_file(dir / "model/tokenizer_config.json", config.dump());
  run(dir / "model", dir / "model.gguf", "gguf-bf16");
  run(dir / "model.gguf", dir / "again", "hf-bf16");
  const auto again = nlohmann::json::parse(testing::read_file(dir / "again/tokenizer_config.json"));
  EXPECT_EQ(again.at("chat_template"), config.at("chat_template"));
  const auto generation = nlohmann::json::parse(testing::read_file(dir / "again/generation_config.json"));
  EXPECT_EQ(generation.at("eos_token_id"), 258);
}

}  // namespace
}  // namespace crumb::exporting
