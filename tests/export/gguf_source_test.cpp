// A GGUF as the model that is exported, quantized or trained: what comes out is what its folder would give.
#include <gmock/gmock.h>

#include <algorithm>
#include <functional>
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

// --- Files written from codes ----------------------------------------------------------------------------------------

struct CodesCase {
  std::string target;
  formats::TensorType type;
  int64_t hidden, group_size;
  quant::Grid grid = quant::Grid::seq;
};
/// A codes folder, and model.gguf made from it.
class GgufOfCodes : public ::testing::TestWithParam<CodesCase> {
 protected:
  void SetUp() override {
    const auto& c = GetParam();
    const quant::QuantFormat format{c.grid, 2, true, c.group_size};
    folder = testing::quantized_model(dir.path(), small_spec(Architecture::llama, c.hidden), format);
    run(folder, dir / "model.gguf", c.target);
  }
  const TempDir dir;
  Path folder;
};

TEST_P(GgufOfCodes, GivesTheCodesAndScalesOfItsFolder) {
  const auto expected = quant::open_checkpoint(folder), actual = quant::open_checkpoint(dir / "model.gguf");
  int compared = 0;
  for (const auto& tensor : expected->tensors()) {
    const auto& other = actual->tensor(tensor.desc.hf_name);
    ASSERT_EQ(other.format, tensor.format) << tensor.desc.hf_name;
    if (!tensor.format) continue;
    ++compared;
    EXPECT_EQ(other.dtype, formats::type_name(GetParam().type));
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, tensor.desc.rows()}, {5, 9}}) {
      const auto theirs = expected->read_codes(tensor, begin, end), ours = actual->read_codes(other, begin, end);
      EXPECT_EQ(ours.codes, theirs.codes) << tensor.desc.hf_name;
      EXPECT_EQ(ours.scales, theirs.scales) << tensor.desc.hf_name;
    }
  }
  EXPECT_EQ(compared, 14);
}

TEST_P(GgufOfCodes, ExportsAsItsFolderDoes) {
  for (const std::string target : {"gguf-q4_0", "gguf-q8_0"}) {
    ::testing::internal::CaptureStderr();
    run(dir / "model.gguf", dir / target, target);
    EXPECT_EQ(::testing::internal::GetCapturedStderr().find("full-precision"), std::string::npos);
    run(folder, dir / (target + "-of-folder"), target);
    const formats::GgufReader ours(dir / target), theirs(dir / (target + "-of-folder"));
    for (const auto& tensor : theirs.tensors()) {
      if (tensor.name == "token_embd.weight") continue;  // rounded once more
      const auto a = ours.bytes(ours.tensor(tensor.name)), b = theirs.bytes(tensor);
      EXPECT_TRUE(std::ranges::equal(a, b)) << target << ": " << tensor.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, GgufOfCodes,
                         ::testing::Values(CodesCase{"gguf-q2_0c", formats::TensorType::q2_0c, 512, 0},
                                           CodesCase{"gguf-q2_k", formats::TensorType::q2_k, 512, 256},
                                           CodesCase{"gguf-q4_0", formats::TensorType::q4_0, 128, 64},
                                           CodesCase{"gguf-q8_0", formats::TensorType::q8_0, 64, 0},
                                           CodesCase{"gguf-q4_0", formats::TensorType::q4_0, 128, 64,
                                                     quant::Grid::ternary}),
                         [](const auto& test) {
                           return fmt::format("{}_{}", formats::type_name(test.param.type),
                                              test.param.grid.facts().name);
                         });

// Integer zero points come back as minima, with the same codes and values.
TEST(GgufOfFloatZeroPoints, GivesTheCodesScalesAndMinimaOfItsFolder) {
  for (const bool has_minima : {true, false}) {
    const TempDir dir;
    const quant::QuantFormat format{quant::Grid::intn, 4, false, 64, false, has_minima};
    const auto folder = testing::quantized_model(dir.path(), small_spec(Architecture::llama, 128), format);
    run(folder, dir / "model.gguf", "gguf-q4_1");
    const auto expected = quant::open_checkpoint(folder), actual = quant::open_checkpoint(dir / "model.gguf");
    int compared = 0;
    for (const auto& tensor : expected->tensors()) {
      if (!tensor.format) continue;
      ++compared;
      const auto& other = actual->tensor(tensor.desc.hf_name);
      ASSERT_EQ(other.format, (quant::QuantFormat{quant::Grid::intn, 4, false, 64, false, true}))
          << tensor.desc.hf_name;
      const auto theirs = expected->read_codes(tensor, 5, 9), ours = actual->read_codes(other, 5, 9);
      EXPECT_EQ(ours.codes, theirs.codes) << tensor.desc.hf_name;
      EXPECT_EQ(ours.scales, theirs.scales) << tensor.desc.hf_name;
      for (size_t i = 0; i < ours.scales.size(); ++i) EXPECT_EQ(ours.group(i).value(0), theirs.group(i).value(0));
      EXPECT_EQ(quant::read_all(*actual, other), quant::read_all(*expected, tensor));
    }
    EXPECT_EQ(compared, 14);
  }
}

/// How many linears of the file are codes after `spoil` had the bytes of blk.0.ffn_up.weight.
int64_t quantized_linears(const std::string& target, const std::function<void(uint8_t*)>& spoil) {
  const TempDir dir;
  const auto folder = testing::quantized_model(dir.path(), small_spec(Architecture::llama, 512), {});
  run(folder, dir / "model.gguf", target);
  std::string bytes = testing::read_file(dir / "model.gguf");
  {
    const formats::GgufReader file(dir / "model.gguf");
    const auto& tensor = file.tensor("blk.0.ffn_up.weight");
    spoil(reinterpret_cast<uint8_t*>(bytes.data()) + file.data_begin() + tensor.offset);
  }
  testing::write_file(dir / "spoiled.gguf", bytes);
  const auto model = quant::open_checkpoint(dir / "spoiled.gguf");
  return std::ranges::count_if(model->tensors(), [](const auto& tensor) { return tensor.format.has_value(); });
}

TEST(GgufOfCodes, OneBlockThatIsNoneLeavesItsTensorOut) {
  const auto nothing = [](uint8_t*) {};
  for (const std::string target : {"gguf-q2_0c", "gguf-q2_k", "gguf-q4_0", "gguf-q8_0"})
    EXPECT_EQ(quantized_linears(target, nothing), 14) << target;
  EXPECT_EQ(quantized_linears("gguf-q4_0", [](uint8_t* row) { row[2] ^= 1; }), 14) << "an even integer: codes of INT4";
  EXPECT_EQ(quantized_linears("gguf-q8_0", [](uint8_t* row) { row[2 + 31] = 0; }), 14) << "a zero: codes of INT8";
  EXPECT_EQ(quantized_linears("gguf-q2_k", [](uint8_t* row) { row[7] = 0x32; }), 13) << "another sub-scale";
  EXPECT_EQ(quantized_linears("gguf-q2_k", [](uint8_t* row) { row[82] ^= 0x20; }), 13) << "another minimum";
  for (const std::string target : {"gguf-q2_0c", "gguf-q4_0", "gguf-q8_0"}) {
    EXPECT_EQ(quantized_linears(target, [](uint8_t* row) { row[0] ^= 1; }), 13) << target << ": a scale of 11 bits";
    EXPECT_EQ(quantized_linears(target, [](uint8_t* row) { row[1] ^= 0x80; }), 13) << target << ": a negative scale";
    EXPECT_EQ(quantized_linears(target, [](uint8_t* row) { row[0] = row[1] = 0; }), 13) << target << ": no scale";
  }
}

TEST(GgufOfCodes, OrdinaryBlockTypesAreNone) {
  const TempDir dir;
  write_model(dir / "model", small_spec(Architecture::llama, 64));
  for (const std::string target : {"gguf-q4_0", "gguf-q8_0", "gguf-bf16"}) {
    run(dir / "model", dir / target, target);
    const auto model = quant::open_checkpoint(dir / target);
    for (const auto& tensor : model->tensors()) EXPECT_FALSE(tensor.format.has_value()) << tensor.desc.hf_name;
  }
}

TEST(GgufOfCodes, InspectCountsTheCodes) {
  const TempDir dir;
  const auto folder = testing::quantized_model(dir.path(), small_spec(Architecture::llama, 64), {});
  run(folder, dir / "model.gguf", "gguf-q8_0");
  const auto of = [](const fs::path& path) {
    return nlohmann::json::parse(run_crumb("inspect --json " + path.string()).out).at("codes");
  };
  EXPECT_EQ(of(dir / "model.gguf").at("q8_0"), of(folder).at("seq2"));
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
