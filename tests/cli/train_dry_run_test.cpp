// crumb train --dry-run, and what else is told before the work.
#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>

#include "tests/cli/train_verb.h"

namespace crumb::testing {
namespace {

using ::testing::HasSubstr;

TEST_F(TrainVerb, ADryRunLeavesTheOutputAlone) {
  const TempDir dir;
  write_file(dir / "file", "");  // neither cache nor home can be written: tokens go elsewhere
  const std::string nowhere = (dir / "file/x").string();
  const auto result = run_command("env CRUMB_CACHE=" + nowhere + " XDG_CACHE_HOME=" + nowhere + " HOME=" + nowhere +
                                  " " + program().string() + words(qat(dir / "run", {"--dry-run"})));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("steps"));
  EXPECT_FALSE(fs::exists(dir / "run"));
}

TEST_F(TrainVerb, WhatAnExportBecomesIsSaidAtTheStartAndInADryRun) {
  const TempDir dir;
  const std::string fallback = "no linear is q2_k: q2_k needs rows of a multiple of 256, not 32";
  auto arguments = qat(dir / "run", {"export=[gguf-q2_k]", "schedule.tokens=64"});
  std::erase(arguments, "--quiet");
  const auto result = run_crumb(words(arguments));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const size_t said = result.err.find("warning: export gguf-q2_k: " + fallback);
  EXPECT_LT(said, result.err.find("steps of")) << result.err;
  EXPECT_THAT(result.err, HasSubstr("export gguf-q2_k: 5 f32, 14 q4_0, 1 q8_0; "));

  arguments.push_back("--dry-run");
  EXPECT_THAT(run_crumb(words(arguments)).out, HasSubstr("  warning: " + fallback));
  arguments.push_back("--json");
  const Json plan = Json::parse(run_crumb(words(arguments)).out).at("exports").at(0);
  EXPECT_EQ(plan.at("warnings").at(0), fallback);
  EXPECT_EQ(plan.at("types").at(1).at("type"), "q4_0");
  EXPECT_EQ(plan.at("types").at(1).at("tensors"), 14);
}

TEST_F(TrainVerb, ATargetThatCannotHoldTheModelIsRefusedBeforeTheWork) {
  const TempDir dir;
  Json config = Json::parse(read_file(*shared_ / "blank/config.json"));
  fs::copy(*shared_ / "blank", dir / "blank");
  config["model_type"] = "qwen3";
  config["attention_bias"] = true;
  write_file(dir / "blank/config.json", config.dump());
  const auto start = [&](const std::string& target, const std::string& more) {
    return run_command(pretrain() +
                       words({"model.config=" + (dir / "blank").string(), "export=[" + target + "]",
                              "output=" + (dir / "run").string(), "schedule.tokens=256"}) +
                       more);
  };
  for (const char* more : {"", " --dry-run"}) {
    const auto refused = start("gguf-bf16", more);
    EXPECT_EQ(refused.exit_code, 2) << more;
    EXPECT_THAT(refused.err, HasSubstr("llama.cpp knows no bias of attention's output (o_proj.bias) in a qwen3 model"));
    EXPECT_FALSE(fs::exists(dir / "run/job.yaml"));
  }
  EXPECT_EQ(start("hf-bf16", " --dry-run").exit_code, 0);
}

/// Bytes of a safetensors file's tensors.
int64_t tensor_bytes(const fs::path& path) {
  const std::string bytes = read_file(path);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  return static_cast<int64_t>(bytes.size() - sizeof header - header);
}

TEST_F(TrainVerb, ADryRunTellsWhatTheRunTakesOnDisk) {
  const TempDir dir;
  const std::vector<std::string> targets = {"export=[gguf-q4_0]"};
  ASSERT_EQ(run_qat(dir / "run", targets).exit_code, 0);
  const auto planned = run_qat(dir / "other", {targets[0], "--dry-run", "--json"});
  ASSERT_EQ(planned.exit_code, 0) << planned.err;
  const Json disk = Json::parse(planned.out).at("disk");
  const fs::path checkpoint = dir / "run/checkpoints/step-000060";
  EXPECT_EQ(disk.at("checkpoint_bytes"),
            tensor_bytes(checkpoint / "masters.safetensors") + tensor_bytes(checkpoint / "optimizer.safetensors"));
  EXPECT_EQ(disk.at("checkpoints_kept"), 2);
  EXPECT_EQ(disk.at("model_bytes"), tensor_bytes(dir / "run/model/model.safetensors"));
  EXPECT_EQ(disk.at("last_bytes"), tensor_bytes(dir / "run/last/model.safetensors"));
  EXPECT_EQ(disk.at("export_bytes"), Json::parse(planned.out).at("exports").at(0).at("data_bytes"));
  EXPECT_EQ(disk.at("total_bytes"), 3 * disk.at("checkpoint_bytes").get<int64_t>() +
                                        2 * disk.at("model_bytes").get<int64_t>() +
                                        disk.at("export_bytes").get<int64_t>());
  EXPECT_GT(disk.at("free_bytes"), 0);
  const auto text = run_qat(dir / "other", {"--dry-run", "checkpoint.keep=5"});
  EXPECT_THAT(text.out, HasSubstr("\ndisk, at most about "));
  EXPECT_THAT(text.out, HasSubstr(" each, 5 kept and one being written\n"));

  auto plain = run_command(pretrain() + " --dry-run --json output=" + (dir / "other").string());
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_EQ(Json::parse(plain.out).at("disk").at("model_bytes"), tensor_bytes(teacher() / "model.safetensors"));
}

TEST_F(TrainVerb, ADryRunRefusesWhatTheRunRefuses) {
  const TempDir dir;
  fs::create_directories(dir / "texts");
  write_file(dir / "utf16.txt", std::string("\xFF\xFEt\0e\0x\0t\0", 10));
  ASSERT_EQ(run_qat(dir / "run", {"schedule.tokens=64", "seed=7"}).exit_code, 0);
  const std::string folder = (dir / "texts").string();
  const std::vector<std::pair<std::string, std::string>> mistakes = {
      {"output=" + teacher().string(), "is read by the job; choose another"},
      {"output=" + (dir / "run").string(), "holds a run of another job"},
      {"data.train=" + folder, "data.train: " + folder + " is a folder; name the files in it"},
      {"data.valid=" + folder, "data.valid: " + folder + " is a folder; name the files in it"},
      {"evaluate.text=" + folder, "evaluate.text: " + folder + " is a folder; name the files in it"},
      {"data.train=[" + text() + ", " + text() + "]", "is given twice"},
      {"data.valid=" + text(), "is trained on, too"},
      {"data.train=" + (dir / "utf16.txt").string(), "utf16.txt: UTF-16 text; convert it to UTF-8"},
      {"model=" + (dir / "run/model").string(), "is quantized already"},
  };
  for (const auto& [mistake, message] : mistakes) {
    const auto run = run_qat(dir / "new", {mistake}), planned = run_qat(dir / "new", {mistake, "--dry-run"});
    EXPECT_EQ(run.exit_code, 2) << mistake;
    EXPECT_EQ(planned.exit_code, 2) << mistake << planned.out;
    EXPECT_THAT(planned.err, HasSubstr(message));
    EXPECT_EQ(planned.err, run.err);
    EXPECT_FALSE(fs::exists(dir / "new/job.yaml")) << mistake;
  }
}

TEST_F(TrainVerb, ADryRunSaysWhatItsTimeFollowsFrom) {
  const TempDir dir;
  const std::string out = run_qat(dir / "run", {"--dry-run"}).out;
  EXPECT_THAT(out, HasSubstr(": 2 threads, computing in fp32, by the speed of float32 products\n"));
  const Json plan = Json::parse(run_qat(dir / "run", {"--dry-run", "--json", "threads=1", "compute=bf16"}).out);
  EXPECT_EQ(plan.at("threads"), 1);
  EXPECT_EQ(plan.at("compute"), "bf16");
}

class DryRun : public ::testing::Test {
 protected:
  static Json plan(const std::string& recipe, const std::string& fixture_name,
                   const std::vector<std::string>& more = {}) {
    const auto result = run_crumb(command(recipe, fixture_name, more) + " --json");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return Json::parse(result.out, nullptr, false);
  }
  static std::string command(const std::string& recipe, const std::string& fixture_name,
                             const std::vector<std::string>& more = {}) {
    std::string out = "train " + config(recipe).string() + " model=" + fixture(fixture_name).string() +
                      " data.train=absent.txt output=" + fixture(fixture_name).string() + "/run --dry-run";
    for (const auto& word : more) out += " '" + word + "'";
    return out;
  }
};

TEST_F(DryRun, Of18BillionParametersShowsTheBytesOfThePublishedFile) {
  const Json json = plan("qat/hy_1.8b_seq_w2.yaml", "hy_1.8b.json");
  const Json target = json.at("exports").at(0);
  EXPECT_EQ(target.at("target"), "gguf-q2_0c");
  // The data section of Tencent's 600,534,880-byte file: 224 linears in Q2_0C, the embedding in Q6_K, 129 norms in F32.
  EXPECT_EQ(target.at("data_bytes"), 595444768);
  EXPECT_EQ(target.at("embedding_bytes"), 120818LL * 1680);
  EXPECT_NEAR(target.at("linears_bytes").get<double>(), 0.39e9, 0.005e9);
  EXPECT_TRUE(target.at("metadata_bytes").is_null());
  EXPECT_EQ(json.at("plan").at("tokens").get<int64_t>(), (100LL << 20) / 65536 * 65536);
  EXPECT_GT(json.at("memory_bytes").get<double>(), 1.79e9 * 4 * 5);
}

TEST_F(DryRun, TellsWhatIsUnknown) {
  const auto result = run_crumb(command("qat/hy_1.8b_seq_w2.yaml", "hy_1.8b.json"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("bytes of its files     unknown"));
  EXPECT_THAT(result.out, HasSubstr("windows of text        unknown"));
  EXPECT_THAT(result.out, HasSubstr("metadata: unknown"));
  EXPECT_THAT(result.out, HasSubstr("\n  weights: "));
  EXPECT_THAT(result.out, HasSubstr("\n  text: "));
  EXPECT_THAT(result.out, HasSubstr("\n  output: "));
}

TEST_F(DryRun, OfOtherRecipesNeedsTheirConfigurationOnly) {
  const Json llama = plan("qat/llama_3.2_1b_seq_w2.yaml", "llama_3.2_1b.json");
  EXPECT_EQ(llama.at("parameters"), 1235814400);
  EXPECT_EQ(llama.at("exports").size(), 2U);
  const Json qwen = plan("qat/qwen3_1.7b_seq_w2.yaml", "qwen3_1.7b.json");
  EXPECT_EQ(qwen.at("parameters"), 1720574976);
}

TEST_F(DryRun, MemoryOfTheLogitsIsThatOfTheChunkAskedFor) {
  const auto memory = [](const std::string& chunk) {
    return plan("qat/hy_1.8b_seq_w2.yaml", "hy_1.8b.json", {"objective.chunk_tokens=" + chunk})
        .at("memory_bytes")
        .get<int64_t>();
  };
  constexpr int64_t kRowOfLogits = 3 * 4 * 120818;  // student's, teacher's and their gradient in float32
  EXPECT_EQ(memory("100") - memory("1"), 99 * kRowOfLogits);
  EXPECT_EQ(memory("0"), memory("256"));
}

TEST_F(DryRun, WithoutTextAutoTokensAreUnknown) {
  const Json json = plan("qat/seq_w2.yaml", "llama_3.2_1b.json");
  EXPECT_TRUE(json.at("plan").is_null());
  EXPECT_TRUE(json.at("memory_bytes").is_null());
}

}  // namespace
}  // namespace crumb::testing
