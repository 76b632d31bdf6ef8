// crumb quantize as a user calls it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/formats/safetensors.h"
#include "quant/checkpoint.h"
#include "tests/testing/testing.h"

namespace crumb::ptq {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string quoted(const testing::fs::path& path) { return "'" + path.string() + "'"; }

/// Without the headers of their files.
int64_t bytes_of_tensors(const testing::fs::path& folder) {
  int64_t bytes = 0;
  const formats::SafetensorsReader reader(folder);
  for (const auto& tensor : reader.tensors()) bytes += tensor.bytes;
  return bytes;
}

TEST(QuantizeVerb, FlagsMakeAFolderAndATable) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  const testing::TempDir dir;
  const auto result = testing::run_crumb("quantize " + quoted(folder) + " --method rtn --grid seq --init mse -o " +
                                         quoted(dir / "out"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("relative squared error"));
  EXPECT_THAT(result.out, HasSubstr("down_proj"));
  EXPECT_THAT(result.out, HasSubstr("SQNR"));
  EXPECT_EQ(quant::open_checkpoint(dir / "out")->kind(), quant::CheckpointKind::codes);
}

TEST(QuantizeVerb, FlagsReachTheFormat) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  const auto result = testing::run_crumb(
      "quantize " + quoted(folder) +
      " --grid int --bits 4 --group-size 4 --asymmetric --init absmax --exclude '*.3.*' --exclude o_proj -o " +
      quoted(dir / "out") + " --json");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto report = nlohmann::json::parse(result.out);
  EXPECT_EQ(report["bits_per_weight"], 4 + 64.0 / 4);
  EXPECT_EQ(report["tensors"][0]["scales"], 64 * 64 / 4);
  EXPECT_EQ(report["tensors"][0]["clamped_scales"], 0);
  const auto saved = quant::open_checkpoint(dir / "out");
  EXPECT_EQ(saved->tensor("model.layers.0.mlp.up_proj.weight").format,
            (quant::QuantFormat{.grid = quant::Grid::intn, .bits = 4, .symmetric = false, .group_size = 4}));
  EXPECT_FALSE(saved->tensor("model.layers.3.mlp.up_proj.weight").format.has_value());
  EXPECT_FALSE(saved->tensor("model.layers.0.self_attn.o_proj.weight").format.has_value());
}

TEST(QuantizeVerb, AFloatZeroPointIsWrittenShownAndExported) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  const std::string job = "quantize " + quoted(folder) +
                          " --grid int --bits 4 --group-size 4 method.zero_point=float -o " + quoted(dir / "out");
  const auto refused = testing::run_crumb(job);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("method.zero_point: float needs symmetric: false, and method.symmetric is true"));
  const auto result = testing::run_crumb(job + " --asymmetric");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(quant::open_checkpoint(dir / "out")->tensor("model.layers.0.mlp.up_proj.weight").format,
            (quant::QuantFormat{quant::Grid::intn, 4, false, 4, false, true}));
  const auto dry = testing::run_crumb(job + " --asymmetric --force --dry-run");
  EXPECT_THAT(dry.out, HasSubstr("INT4 float zero point g4"));
  const auto shown = testing::run_crumb("inspect " + quoted(dir / "out"));
  ASSERT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("int4+min"));
  const auto trained = testing::run_crumb("train " + quoted(testing::source_dir() / "configs/qat/seq_w2.yaml") +
                                          " model=" + quoted(folder) + " method.init=" + quoted(dir / "out") +
                                          " method.grid=int method.bits=4 method.group_size=4 data.train=" +
                                          quoted(folder / "config.json") + " output=" + quoted(dir / "run"));
  EXPECT_EQ(trained.exit_code, 2);
  EXPECT_THAT(trained.err, HasSubstr("INT4 float zero point"));
}

TEST(QuantizeVerb, ShippedJobsRunWithOverrides) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  CRUMB_NEED_DATA(corpus, "text/corpus/prose-test.txt");
  const testing::TempDir dir;
  int jobs = 0;
  for (const auto& entry : testing::fs::directory_iterator(testing::source_dir() / "configs/ptq")) {
    const auto output = dir / entry.path().stem().string();
    const std::string name = entry.path().stem().string(), text = testing::read_file(entry.path());
    std::string command = "quantize " + quoted(entry.path()) + " model=" + quoted(folder) + " output=" + quoted(output);
    if (text.find("calibration:") != std::string::npos)
      command += " calibration.tokens=1k calibration.text=" + quoted(corpus);
    if (name.starts_with("autoround")) command += " method.iterations=2";
    const auto result = testing::run_crumb(command);
    EXPECT_EQ(result.exit_code, 0) << entry.path() << ": " << result.err;
    EXPECT_TRUE(testing::fs::exists(output / "config.json"));
    ++jobs;
  }
  EXPECT_EQ(jobs, 15);
}

TEST(QuantizeVerb, PrintConfigShowsTheResolvedJobAndRunsNothing) {
  const testing::TempDir dir;
  const auto result =
      testing::run_crumb("quantize DIR --group-size 64 --print-config method.init=absmax -o " + quoted(dir / "out"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("group_size: 64"));
  EXPECT_THAT(result.out, HasSubstr("absmax"));
  EXPECT_THAT(result.out, HasSubstr("rtn"));
  EXPECT_FALSE(testing::fs::exists(dir / "out"));
}

TEST(QuantizeVerb, ADryRunSaysWhatTheRunMakesAndWritesNothing) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  const testing::TempDir dir;
  const std::string arguments = "quantize " + quoted(folder) + " --grid int --bits 4 --group-size 32 " +
                                "'method.overrides={\"down_proj\": {bits: 8, group_size: 0}}' masters=true -o " +
                                quoted(dir / "out");
  const auto dry = testing::run_crumb(arguments + " --dry-run --json");
  ASSERT_EQ(dry.exit_code, 0) << dry.err;
  EXPECT_FALSE(testing::fs::exists(dir / "out"));
  EXPECT_FALSE(testing::fs::exists(dir / "out.partial"));
  const auto plan = nlohmann::json::parse(dry.out);
  EXPECT_EQ(plan["linears"], 28);
  ASSERT_EQ(plan["formats"].size(), 2u);
  EXPECT_EQ(plan["formats"][0]["linears"], 24);
  EXPECT_EQ(plan["formats"][0]["group_size"], 32);
  EXPECT_EQ(plan["formats"][1]["bits"], 8);
  EXPECT_EQ(plan["added_head"], nullptr);

  const auto result = testing::run_crumb(arguments + " --json");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto report = nlohmann::json::parse(result.out);
  EXPECT_EQ(plan["bits_per_weight"], report["bits_per_weight"]);
  EXPECT_EQ(plan["kept_parameters"], report["kept_parameters"]);
  // and the shapes of the linears, int64 [2] each
  EXPECT_EQ(plan["codes_bytes"].get<int64_t>() + plan["kept_bytes"].get<int64_t>() + 28 * 16,
            bytes_of_tensors(dir / "out"));
  EXPECT_EQ(plan["masters_bytes"], bytes_of_tensors(dir / "out/masters"));

  const auto text = testing::run_crumb(arguments + "2 --dry-run").out;
  EXPECT_THAT(text, HasSubstr("out2: 28 linears"));
  EXPECT_THAT(text, HasSubstr(", masters 50.33 MB\n"));
  EXPECT_THAT(text, HasSubstr("INT4 symmetric g32        24 linears"));
  EXPECT_THAT(text, Not(HasSubstr("rotation")));
  const auto refused =
      testing::run_crumb("quantize " + quoted(folder) + " --group-size 100 --dry-run -o " + quoted(dir / "x"));
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("100 does not divide 512"));
}

TEST(QuantizeVerb, SaysWhatAHeadOfItsOwnCostsInADryRunAndInTheRun) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");  // tied, 4096 x 512, bf16
  const testing::TempDir dir;
  const std::string arguments = "quantize " + quoted(folder) + " rotation.residual=true -o " + quoted(dir / "out");
  const std::string line =
      "rotation.residual: the head, which was the embedding, becomes a matrix of its own: 2,097,152 parameters and "
      "4.19 MB in BF16 more; rotation.residual=false avoids it\n";
  const auto dry = testing::run_crumb(arguments + " --dry-run");
  ASSERT_EQ(dry.exit_code, 0) << dry.err;
  EXPECT_THAT(dry.out, HasSubstr(line));
  const auto plan = nlohmann::json::parse(testing::run_crumb(arguments + " --dry-run --json").out);
  EXPECT_EQ(plan["added_head"], (nlohmann::json{{"parameters", 2097152}, {"bytes", 2 * 2097152}, {"dtype", "BF16"}}));
  const auto result = testing::run_crumb(arguments);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr(line));
  const auto plain = nlohmann::json::parse(
      testing::run_crumb("quantize " + quoted(folder) + " rotation.heads=true --dry-run --json -o " + quoted(dir / "b"))
          .out);
  EXPECT_EQ(plain["added_head"], nullptr);
  EXPECT_EQ(plan["kept_bytes"].get<int64_t>() - plain["kept_bytes"].get<int64_t>(), 2 * 2097152);
  EXPECT_EQ(plan["kept_bytes"].get<int64_t>() + plan["codes_bytes"].get<int64_t>() + 28 * 16,
            bytes_of_tensors(dir / "out"));
}

TEST(QuantizeVerb, MistakesEndWithCode2AndOneLine) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  const std::string out = " -o " + quoted(dir / "out");
  const struct {
    std::string arguments, message;
  } cases[] = {
      {quoted(folder) + " --bits 4" + out, "method.bits: grid seq has 2 bits, got 4"},
      {quoted(folder) + " --group-size 32" + out,
       "32 does not divide 172, the input size of model.layers.0.mlp.down_proj"},
      {quoted(folder) + " --grid sec" + out, "method.grid"},
      {quoted(folder) + " method.grop_size=4" + out, "did you mean \"group_size\""},
      {quoted(folder), "output: must be given"},
      {"/nonexistent/model" + out, "/nonexistent/model: no such file or folder"},
  };
  for (const auto& [arguments, message] : cases) {
    const auto result = testing::run_crumb("quantize " + arguments);
    EXPECT_EQ(result.exit_code, 2) << arguments;
    EXPECT_THAT(result.err, HasSubstr(message)) << arguments;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  }
  EXPECT_FALSE(testing::fs::exists(dir / "out"));
}

TEST(QuantizeVerb, MatricesThatAGgufHoldsInBlocksBecomeBf16) {
  const testing::TempDir dir;
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const auto exported = testing::run_crumb("export " + quoted(folder) + " --to gguf-q8_0 -o " + quoted(dir / "a.gguf"));
  ASSERT_EQ(exported.exit_code, 0) << exported.err;
  ASSERT_EQ(quant::open_checkpoint(dir / "a.gguf")->tensor("model.embed_tokens.weight").dtype, "q8_0");
  const auto result = testing::run_crumb("quantize " + quoted(dir / "a.gguf") + " -o " + quoted(dir / "out"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("30 of 35 linears are stored as q8_0"));
  EXPECT_EQ(quant::open_checkpoint(dir / "out")->tensor("model.embed_tokens.weight").dtype, "BF16");
}

TEST(QuantizeVerb, GgufGivesTheCodesOfItsFolder) {
  const testing::TempDir dir;
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const auto run = [](const std::string& arguments) {
    const auto result = testing::run_crumb(arguments);
    ASSERT_EQ(result.exit_code, 0) << arguments << result.err;
  };
  run("export " + quoted(folder) + " --to gguf-bf16 -o " + quoted(dir / "a.gguf"));
  run("export " + quoted(folder) + " --to hf-bf16 -o " + quoted(dir / "a"));
  run("quantize " + quoted(dir / "a.gguf") + " -o " + quoted(dir / "from-gguf"));
  run("quantize " + quoted(dir / "a") + " -o " + quoted(dir / "from-folder"));
  const auto ours = quant::open_checkpoint(dir / "from-gguf"), theirs = quant::open_checkpoint(dir / "from-folder");
  for (const auto& tensor : theirs->tensors()) {
    EXPECT_EQ(quant::read_all(*ours, ours->tensor(tensor.desc.hf_name)), quant::read_all(*theirs, tensor))
        << tensor.desc.hf_name;
  }
  const std::string text = "Once upon a time, there was a caf\xc3\xa9";
  EXPECT_EQ(ours->load_tokenizer()->encode(text, true), theirs->load_tokenizer()->encode(text, true));
}

}  // namespace
}  // namespace crumb::ptq
