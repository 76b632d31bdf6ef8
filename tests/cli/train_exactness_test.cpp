// What a run logs, saves and goes on from is exact: in bfloat16 on matrices of real widths, with groups, and beside
// the judgement of crumb eval.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/train_verb.h"

namespace crumb::testing {
namespace {

/// A model wide enough for the matrix kernels that small ones do not reach, at its random values.
fs::path make_wide_model(const fs::path& folder, const fs::path& text) {
  make_blank_model(folder / "blank");
  Json config = Json::parse(read_file(folder / "blank/config.json"));
  config["hidden_size"] = 256;
  config["intermediate_size"] = 512;
  config["num_attention_heads"] = 4;
  config["num_key_value_heads"] = 2;
  config["head_dim"] = 64;
  config["max_position_embeddings"] = 64;
  write_file(folder / "blank/config.json", config.dump());
  const auto made = run_crumb("train " + (source_dir() / "configs/pretrain/teacher.yaml").string() +
                              " model.config=" + (folder / "blank").string() + " data.train=" + text.string() +
                              " output=" + (folder / "made").string() +
                              " data.sequence_length=64 schedule.tokens=512 schedule.batch_tokens=64 threads=2 " +
                              "validate.windows=1 --quiet");
  EXPECT_EQ(made.exit_code, 0) << made.err;
  return folder / "made/model";
}

TEST_F(TrainVerb, ARunInBfloat16GoesOnBitForBit) {
  const TempDir dir;
  const fs::path model = make_wide_model(dir / "wide", text());
  const auto arguments = [&](const fs::path& output) {
    return qat(output, {"model=" + model.string(), "compute=bf16", "schedule.tokens=3840"});
  };
  const auto whole = run_crumb(words(arguments(dir / "whole")));
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  {
    RunningCrumb crumb(arguments(dir / "run"), dir / "err");
    ASSERT_TRUE(crumb.wait_for_lines(dir / "run/log.jsonl", 24)) << read_file(dir / "err");
    EXPECT_EQ(crumb.end(SIGTERM), 1);
  }
  const auto rest = run_crumb(words(arguments(dir / "run")));
  ASSERT_EQ(rest.exit_code, 0) << rest.err;
  expect_same_run(dir / "run", dir / "whole");
}

TEST_F(TrainVerb, WithGroupsItLearnsToo) {
  const TempDir dir;
  const auto r = run_qat(dir / "groups", {"method.group_size=16", "--json"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const Json json = Json::parse(r.out);
  EXPECT_LT(json["best"], json["start"]);
  const Json config = Json::parse(read_file(dir / "groups/model/config.json"));
  EXPECT_THAT(config["quantization_config"].dump(), ::testing::HasSubstr("\"group_size\":16"));
}

TEST_F(TrainVerb, TheDivergenceItLogsIsThatOfCrumbEval) {
  const TempDir dir;
  const fs::path held_out = dir / "held-out.txt";
  write_file(held_out, read_file(*shared_ / "text.txt").substr(0, 3000) + "\n\n\nAnother sentence.");
  for (const char* group : {"0", "16"}) {
    const fs::path run = dir / (std::string("run") + group);
    const auto trained = run_qat(run, {"data.valid=" + held_out.string(), "data.sequence_length=32",
                                       std::string("method.group_size=") + group, "validate.windows=100000"});
    ASSERT_EQ(trained.exit_code, 0) << trained.err;
    const auto judged = run_crumb("eval -q --json " + (run / "last").string() + " --baseline " + teacher().string() +
                                  " --text " + held_out.string() + " --separator '\\n\\n\\n' --context 32");
    ASSERT_EQ(judged.exit_code, 0) << judged.err;
    const Json pooled = Json::parse(judged.out)["pooled"], logged = log_of(run).back();
    const auto value = [&](const char* name) { return pooled[name]["value"].get<double>(); };
    EXPECT_NEAR(logged["valid_kl"].get<double>(), value("kl"), 2e-5 * value("kl"));
    EXPECT_NEAR(logged["valid_cross_entropy"].get<double>(), value("cross_entropy"), 1e-5 * value("cross_entropy"));
    EXPECT_NEAR(logged["valid_top1"].get<double>(), value("top1"), 1.01 / pooled["tokens"].get<double>());
  }
}

}  // namespace
}  // namespace crumb::testing
