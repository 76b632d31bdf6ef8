// crumb bench as its user sees it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "core/common/file.h"
#include "tests/testing/running_crumb.h"
#include "tests/testing/testing.h"

namespace crumb {
namespace {

using crumb::testing::read_file;
using crumb::testing::run_crumb;
using crumb::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class BenchVerb : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = crumb::testing::data("models/stories260K-hf");  // context 512
    if (model_.empty())
      CRUMB_CANNOT_RUN("CRUMB_REQUIRE_DATA", "needs the data file models/stories260K-hf; set CRUMB_DATA");
  }
  static constexpr const char* kQuick = " --rounds 2 --prompt 4,8 --context 0,16 --new 3 --threads 1 ";
  testing::CommandResult bench(const std::string& arguments) { return run_crumb("bench -q " + arguments); }
  void expect_error(const std::string& arguments, const std::string& message) {
    const auto r = bench(arguments);
    EXPECT_EQ(r.exit_code, 2);
    EXPECT_EQ(r.err, "crumb: " + message + "\n");
    EXPECT_EQ(r.out, "");
  }
  std::string path() const { return model_.string(); }
  TempDir dir_;
  Path model_;
};

TEST_F(BenchVerb, JsonHasARowForEveryModelAndNumberOfThreadsWithEverySample) {
  const auto r =
      bench("--json a=" + path() + " b=" + path() + " --rounds 3 --prompt 8,4 --context 16,0 --new 3 --threads 2,1");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto json = nlohmann::json::parse(r.out);
  EXPECT_EQ(json["rounds"], 3);
  EXPECT_EQ(json["new_tokens"], 3);
  EXPECT_GT(json["peak_resident_bytes"].get<int64_t>(), 1 << 20);
  EXPECT_LT(json["peak_resident_bytes"].get<int64_t>(), 128 << 20) << "without the buffer of the probe";
  ASSERT_EQ(json["read_probes"].size(), 2u);
  EXPECT_EQ(json["read_probes"][0]["threads"], 2);
  EXPECT_EQ(json["read_probes"][0]["bytes_per_second"].size(), 6u) << "beside 2 contexts in 3 rounds";
  std::vector<std::string> rows;
  for (const auto& row : json["rows"]) {
    rows.push_back(row["model"].get<std::string>() + std::to_string(row["threads"].get<int>()));
    std::vector<std::string> names;
    for (const auto& measure : row["measures"]) {
      const std::string tokens = measure["tokens"].is_null() ? "" : " " + measure["tokens"].dump();
      names.push_back(measure["name"].get<std::string>() + tokens);
      const bool is_fact = measure["tokens"].is_null();
      EXPECT_EQ(measure["samples"].size(), is_fact ? 1u : 3u) << names.back();
      EXPECT_LE(measure["least"].get<double>(), measure["median"].get<double>());
      EXPECT_LE(measure["median"].get<double>(), measure["most"].get<double>());
      EXPECT_EQ(measure["ratio"].is_null(), row["model"] == "a") << names.back();
    }
    EXPECT_THAT(names,
                ::testing::IsSupersetOf({"first_token_seconds 4", "first_token_seconds 8", "tokens_per_second 0",
                                         "tokens_per_second 16", "share_of_read_probe 16",
                                         "share_of_time_in_attention 0", "share_of_time_elsewhere 0", "kv_bytes 16",
                                         "weight_bytes_held", "weight_bytes_read_per_token", "resident_bytes_added"}));
  }
  EXPECT_THAT(rows, ::testing::ElementsAre("a2", "b2", "a1", "b1"));
}

TEST_F(BenchVerb, SharesAndRatesFitEachOther) {
  const auto r = bench("--json " + path() + kQuick);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto json = nlohmann::json::parse(r.out);
  std::map<std::string, nlohmann::json> at;
  for (const auto& measure : json["rows"][0]["measures"]) {
    if (measure["tokens"].is_null() || measure["tokens"] == 16) at[measure["name"]] = measure["samples"];
  }
  const double read = at["weight_bytes_read_per_token"][0];
  for (int round = 0; round < 2; ++round) {
    const double rate = at["weight_bytes_per_second"][round];
    EXPECT_NEAR(rate, at["tokens_per_second"][round].get<double>() * read, 1e-6 * rate);
    // probes: contexts 0 and 16 of each round
    const double probe = json["read_probes"][0]["bytes_per_second"][2 * round + 1];
    EXPECT_NEAR(at["share_of_read_probe"][round].get<double>(), rate / probe, 1e-9);
    const double attention = at["share_of_time_in_attention"][round], elsewhere = at["share_of_time_elsewhere"][round];
    EXPECT_GT(attention, 0);
    EXPECT_GT(elsewhere, 0);
    EXPECT_LT(attention + elsewhere, 1);
  }
  EXPECT_EQ(json["rows"][0]["model"], "stories260K-hf") << "a model without a name is called by its path";
}

TEST_F(BenchVerb, ReportsAndPlotAreWrittenBesideWhatIsPrinted) {
  const std::string csv = (dir_ / "x.csv").string(), svg = (dir_ / "x.svg").string();
  const auto r = bench("'a|,\"b<'=" + path() + kQuick + "-o " + csv + " --plot " + svg);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, AllOf(HasSubstr("\n| model | activations | threads | 4 | 8 |\n|---|---:|---:|---:|---:|\n"),
                           HasSubstr("\n| a\\|,\"b< | float | 1 | 0."), HasSubstr("Generation, tokens/s, 3 tokens")));
  std::istringstream lines(read_file(csv));
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, "model,path,activations,threads,measure,tokens,median,least,most,ratio");
  int count = 0;
  for (; std::getline(lines, line); ++count) EXPECT_THAT(line, StartsWith("\"a|,\"\"b<\"," + path() + ",float,1,"));
  EXPECT_EQ(count, 4 + 2 + 2 * 6) << "facts, prompts, contexts";
  const std::string plot = read_file(svg);
  EXPECT_THAT(plot, AllOf(StartsWith("<svg xmlns="), HasSubstr("a|,&quot;b&lt;, float activations, 1 thread"),
                          ::testing::EndsWith("</svg>\n")));
}

TEST_F(BenchVerb, PromptsThatNoModelHoldsAreLeftOutOfTheUsualOnesWithAWarning) {
  const auto r = bench("--json " + path() + " --rounds 1 --new 1 --threads 1");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(nlohmann::json::parse(r.out)["prompts"], (std::vector<int>{64, 128, 256}));
  EXPECT_EQ(nlohmann::json::parse(r.out)["contexts"], (std::vector<int>{0}));
  EXPECT_EQ(r.err,
            "warning: prompts of 512, 1024 tokens are left out: a model holds only 512\n"
            "warning: contexts of 512 tokens are left out: a model holds only 512\n");
}

TEST_F(BenchVerb, AModelWithoutQuantizedLinearsIsMeasuredOnce) {
  const auto r = bench("--json --activations float,int8 " + path() + kQuick);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(nlohmann::json::parse(r.out)["rows"].size(), 1u);
  EXPECT_EQ(r.err, "warning: " + path() + " has no quantized linears: measured with float activations alone\n");
}

TEST_F(BenchVerb, BlockTypesOfGgufAreQuantizedLinears) {
  const std::string gguf = (dir_ / "q8_0.gguf").string();
  ASSERT_EQ(run_crumb("export " + path() + " --to gguf-q8_0 -o " + gguf).exit_code, 0);
  const auto r = bench("--json --activations float,int8 " + gguf + kQuick);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto json = nlohmann::json::parse(r.out);
  ASSERT_EQ(json["rows"].size(), 2u);
  EXPECT_EQ(json["rows"][0]["activations"], "float");
  EXPECT_EQ(json["rows"][1]["activations"], "int8");
  EXPECT_EQ(r.err, "");
}

TEST_F(BenchVerb, MistakesAreOneLineBeforeAnythingIsMeasured) {
  EXPECT_EQ(bench("").exit_code, 2);
  expect_error(path() + " --rounds 0", "--rounds: 0 is out of range, expected at least 1");
  expect_error(path() + " --new 0", "--new: 0 is out of range, expected at least 1");
  expect_error(path() + " --prompt 64,512", "--prompt: 512 tokens and a new one, " + path() + " holds 512");
  expect_error(path() + " --context 510 --new 3", "--context: 510 tokens and 3 new ones, " + path() + " holds 512");
  expect_error(path() + " --prompt 4,x", "--prompt: \"x\" is not a whole number");
  expect_error(path() + " --prompt 4,4", "--prompt: 4 is given twice");
  expect_error(path() + " --threads 9999", "--threads: 9999 not in range [0 - 1024]");
  expect_error(path() + " " + path(), "two models are called \"stories260K-hf\"; name them: NAME=PATH");
  expect_error(path() + " --activations int4", "--activations: unknown \"int4\"; known: auto, float, bf16, int8");
  expect_error(path() + " --format xml", "--format: unknown format \"xml\"; known: md, json, csv");
  expect_error(path() + " --json --format csv", "--format csv and --json say different things");
  expect_error(path() + " -o x.txt", "--out: x.txt: the name must end in .md, .json or .csv");
  expect_error(path() + " --plot x.png", "--plot: x.png: the name must end in .svg");
  EXPECT_THAT(bench(path() + " --new 512").err,
              ::testing::EndsWith("crumb: --new: 512 tokens, a model holds only 512\n"));
  testing::write_file(dir_ / "x.md", "mine");
  EXPECT_THAT(bench(path() + " -o " + (dir_ / "x.md").string()).err, HasSubstr("--force to replace it"));
  EXPECT_EQ(read_file(dir_ / "x.md"), "mine");
  const auto below_a_file = bench(path() + " -o " + (dir_ / "x.md/y.md").string());
  EXPECT_EQ(below_a_file.exit_code, 2);
  EXPECT_EQ(below_a_file.err, "crumb: cannot write " + (dir_ / "x.md/y.md").string() + ": " + (dir_ / "x.md").string() +
                                  " is not a folder\n");
}

TEST_F(BenchVerb, AnInterruptedRunLeavesNothing) {
  crumb::testing::RunningCrumb crumb({"bench", path(), "--rounds", "100000", "--prompt", "8", "--context", "0", "-o",
                                      (dir_ / "x.md").string(), "--plot", (dir_ / "x.svg").string()},
                                     dir_ / "err");
  ASSERT_TRUE(crumb.wait_for_lines(dir_ / "err", 1)) << read_file(dir_ / "err");
  EXPECT_EQ(crumb.end(SIGINT), 128 + SIGINT);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "x.md") || std::filesystem::exists(dir_ / "x.svg"));
}

}  // namespace
}  // namespace crumb
