// `crumb export` as a user sees it: the summary, the JSON, one line and the exit code for what is wrong.
#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/export/test_models.h"
#include "tests/testing/testing.h"

namespace crumb {
namespace {

namespace fs = std::filesystem;
using arch::Architecture;
using quant::Grid;
using quant::QuantFormat;
using ::testing::AllOf;
using testing::CommandResult;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::run_crumb;
using testing::small_spec;
using testing::TempDir;

class ExportVerb : public ::testing::Test {
 protected:
  CommandResult run(const std::string& model, const std::string& arguments, const std::string& output = "out") {
    return run_crumb("export " + (dir_ / model).string() + " -o " + (dir_ / output).string() + " " + arguments);
  }
  void write_codes(const std::string& name, int64_t hidden, const QuantFormat& format = {}) {
    const auto codes = testing::quantized_model(dir_ / ("of-" + name), small_spec(Architecture::llama, hidden), format);
    fs::rename(codes, dir_ / name);
  }
  /// The user's mistake: exit 2, one line that holds `text`, and no output.
  void expect_refused(const CommandResult& result, const std::string& text) {
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr(text));
    EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.err;
    EXPECT_FALSE(fs::exists(dir_ / "out"));
  }
  TempDir dir_;
};

TEST_F(ExportVerb, SumsUpTypesFallbacksAndTheReadBack) {
  write_codes("codes", 64);  // rows of 64 and 128
  const auto result = run("codes", "--to gguf-q2_k");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("gguf-q2_k"), HasSubstr("bits/weight"), HasSubstr("q4_0"),
                                HasSubstr("q4_0 for 12 tensors (model.layers."),
                                HasSubstr("q2_k needs rows of a multiple of 256, not 64"),
                                HasSubstr("q8_0 for 1 tensor (model.embed_tokens.weight): q6_k needs rows of"),
                                HasSubstr("read back 20 tensors: equal")));
}

TEST_F(ExportVerb, PrintsOneJsonObject) {
  write_codes("codes", 256);
  const auto result = run("codes", "--to gguf-q2_k --json --embedding-type bf16");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["target"], "gguf-q2_k");
  EXPECT_EQ(json["file_bytes"], fs::file_size(dir_ / "out"));
  EXPECT_EQ(json["tensors_read_back_equal"], 20);
  EXPECT_THAT(json["fallbacks"], IsEmpty());
  const auto q2_k = std::ranges::find_if(json["types"], [](const auto& type) { return type["type"] == "q2_k"; });
  EXPECT_EQ((*q2_k)["tensors"], 14);
  EXPECT_EQ((*q2_k)["bits_per_weight"], 2.625);
}

TEST_F(ExportVerb, WarnsOfAWindowThatStockLlamaCppIgnores) {
  auto spec = small_spec(Architecture::mistral, 64);
  for (auto& layer : spec.layers) layer.window = 32;
  testing::write_model(dir_ / "mistral", spec);
  const auto result = run("mistral", "--to gguf-bf16 --json");
  EXPECT_THAT(result.err, HasSubstr("warning: gguf-bf16: stock llama.cpp ignores the sliding window of 32 tokens of "
                                    "this mistral model (context 128)"));
  EXPECT_THAT(nlohmann::json::parse(result.out).at("warnings").at(0).get<std::string>(), HasSubstr("window of 32"));
}

TEST_F(ExportVerb, RefusesBadInputInOneLine) {
  testing::write_model(dir_ / "plain", small_spec(Architecture::llama, 64));
  expect_refused(run("absent", "--to gguf-bf16"), "absent");
  expect_refused(run("plain", "--to gguf-q3_k"), "unknown export target \"gguf-q3_k\"; known: gguf-q2_0c, gguf-q2_k");
  expect_refused(run("plain", "--to gguf-q2_k"), "gguf-q2_k needs a quantized model");
  expect_refused(run("plain", "--to gguf-q8_0 --embedding-type q6_k"), "q6_k needs rows of a multiple of 256, not 64");
  expect_refused(run("plain", "--to gguf-q8_0 --head-type f16"), "use --embedding-type");
  expect_refused(run("plain", "--to gguf-q8_0 --embedding-type q1"), "unknown type \"q1\"");
  write_codes("int8", 64, {Grid::intn, 8, true, 0});
  expect_refused(run("int8", "--to gguf-q4_0"), "use gguf-q8_0");
  write_codes("asymmetric", 64, {Grid::intn, 4, false, 0});
  expect_refused(run("asymmetric", "--to gguf-q4_0"), "q4_0 has no zero points");
}

TEST_F(ExportVerb, RefusesToReplaceWithoutForce) {
  testing::write_model(dir_ / "plain", small_spec(Architecture::llama, 64));
  testing::write_file(dir_ / "mine", "mine");
  const auto refused = run("plain", "--to gguf-bf16", "mine");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--force"));
  EXPECT_EQ(testing::read_file(dir_ / "mine"), "mine");
  EXPECT_EQ(run("plain", "--to gguf-bf16 --force", "mine").exit_code, 0);
}

TEST_F(ExportVerb, TheFileIsJudgedAndRunLikeTheFolderItWasMadeFrom) {
  write_codes("codes", 256);
  ASSERT_EQ(run("codes", "--to gguf-q2_k --embedding-type f32", "a.gguf").exit_code, 0);
  std::string text;
  for (int i = 0; i < 40; ++i) text += "the cat and the dog number " + std::to_string(i * 7919 % 1000) + ". ";
  testing::write_file(dir_ / "text.txt", text);
  const std::string file = (dir_ / "a.gguf").string(), folder = (dir_ / "codes").string();
  const auto judged = run_crumb("-q eval " + file + " --baseline " + folder + " --text " +
                                (dir_ / "text.txt").string() + " --context 64 --json");
  ASSERT_EQ(judged.exit_code, 0) << judged.err;
  const auto report = nlohmann::json::parse(judged.out);
  EXPECT_EQ(report["model"]["kind"], "GGUF");
  EXPECT_EQ(report["baseline"]["kind"], "codes and scales");
  EXPECT_EQ(report["model"]["file_bytes"], fs::file_size(dir_ / "a.gguf"));
  EXPECT_EQ(report["pooled"]["kl"]["value"], 0);
  EXPECT_EQ(report["pooled"]["top1"]["value"], 1);
  EXPECT_EQ(report["pooled"]["perplexity"]["value"], report["pooled"]["baseline_perplexity"]["value"]);
  const std::string prompt = " --prompt 'the cat' --max-tokens 12 --json";
  const auto of_file = run_crumb("-q generate " + file + prompt),
             of_folder = run_crumb("-q generate " + folder + prompt);
  ASSERT_EQ(of_file.exit_code, 0) << of_file.err;
  EXPECT_EQ(nlohmann::json::parse(of_file.out)["tokens"], nlohmann::json::parse(of_folder.out)["tokens"]);
}

TEST_F(ExportVerb, EndsWithOneAndLeavesNothingWhenTheDiskIsFull) {
  testing::write_model(dir_ / "plain", small_spec(Architecture::llama, 256));
  fs::create_directories(dir_ / "place");
  const auto result =
      testing::run_command("trap '' XFSZ; ulimit -f 64; " + testing::program().string() + " export " +
                           (dir_ / "plain").string() + " --to gguf-q8_0 -o " + (dir_ / "place" / "a.gguf").string());
  EXPECT_EQ(result.exit_code, 1) << result.err;
  EXPECT_THAT(result.err, HasSubstr("cannot write"));
  EXPECT_TRUE(fs::is_empty(dir_ / "place"));
}

}  // namespace
}  // namespace crumb
