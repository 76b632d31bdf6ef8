// crumb train as its user sees it.
#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>

#include "tests/cli/train_fixture.h"
#include "tests/testing/small_disk.h"

namespace crumb::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

fs::path config(const std::string& name) { return source_dir() / "configs" / name; }
fs::path fixture(const std::string& name) { return source_dir() / "tests/cli/fixtures" / name; }

bool is_one_line(const std::string& text) { return std::count(text.begin(), text.end(), '\n') == 1; }

/// A trained blank model and a text, made once for all tests of the file.
class TrainVerb : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = new TempDir;
    setenv("CRUMB_CACHE", (*shared_ / "cache").c_str(), 1);
    write_file(*shared_ / "text.txt", sentences(300));
    make_blank_model(*shared_ / "blank");
    const auto made = run_command(pretrain() + " output=" + (*shared_ / "teacher").string());
    ASSERT_EQ(made.exit_code, 0) << made.err;
  }
  static void TearDownTestSuite() {
    delete shared_;
    shared_ = nullptr;
  }

  static std::string words(const std::vector<std::string>& list) {
    std::string out;
    for (const auto& word : list) out += " '" + word + "'";
    return out;
  }
  static std::string pretrain() {
    return program().string() + " train " + config("pretrain/teacher.yaml").string() +
           words({"model.config=" + (*shared_ / "blank").string(), "data.train=" + text(),
                  "data.separator=\"\\n\\n\\n\"", "data.sequence_length=32", "schedule.tokens=9600",
                  "schedule.batch_tokens=128", "optimizer.lr=5e-3", "validate.every=25", "validate.windows=8",
                  "threads=2"});
  }
  static std::string text() { return (*shared_ / "text.txt").string(); }
  static fs::path teacher() { return *shared_ / "teacher" / "model"; }

  /// Arguments of a quantization-aware run of 60 steps with checkpoints every 10.
  static std::vector<std::string> qat(const fs::path& output, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"train",
                                          config("qat/seq_w2.yaml").string(),
                                          "model=" + teacher().string(),
                                          "data.train=" + text(),
                                          "output=" + output.string(),
                                          "schedule.tokens=1920",
                                          "validate.every=15",
                                          "validate.windows=8",
                                          "checkpoint.every=10",
                                          "threads=2",
                                          "compute=fp32",
                                          "--quiet"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  static CommandResult run_qat(const fs::path& output, const std::vector<std::string>& more = {}) {
    return run_crumb(words(qat(output, more)));
  }

  static std::vector<int64_t> steps_of(const fs::path& run) {
    std::vector<int64_t> steps;
    for (const auto& line : log_of(run)) steps.push_back(line.is_object() ? line.at("step").get<int64_t>() : -1);
    return steps;
  }
  static void expect_same_run(const fs::path& run, const fs::path& expected) {
    EXPECT_EQ(steps_of(run), steps_of(expected));
    for (const char* name :
         {"checkpoints/step-000060/masters.safetensors", "checkpoints/step-000060/optimizer.safetensors",
          "model/model.safetensors", "last/model.safetensors", "model/config.json", "job.yaml"}) {
      const bool is_job = std::string(name) == "job.yaml";  // holds the output's own name
      if (!is_job) {
        EXPECT_TRUE(read_file(run / name) == read_file(expected / name)) << name;
      }
      EXPECT_TRUE(fs::exists(run / name)) << name;
    }
    const auto ours = log_of(run), theirs = log_of(expected);
    for (size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i) {
      for (const char* key : {"loss", "valid_kl", "weight_distance"})
        EXPECT_EQ(ours[i].value(key, 0.0), theirs[i].value(key, 0.0)) << key << " in line " << i;
    }
  }

  static TempDir* shared_;
};
TempDir* TrainVerb::shared_ = nullptr;

TEST_F(TrainVerb, EveryShippedJobOfTrainingLoads) {
  int loaded = 0;
  for (const char* folder : {"qat", "pretrain", "distill"}) {
    if (!fs::exists(config(folder))) continue;
    for (const auto& entry : fs::recursive_directory_iterator(config(folder))) {
      if (entry.path().extension() != ".yaml") continue;
      const bool is_random = std::string(folder) == "pretrain";
      const auto result =
          run_crumb("train " + entry.path().string() +
                    words({is_random ? "model.config=m" : "model=m", "data.train=a.txt", "output=o", "teacher=t"}) +
                    " --print-config");
      EXPECT_EQ(result.exit_code, 0) << entry.path() << ": " << result.err;
      EXPECT_THAT(result.out, HasSubstr("schedule:"));
      ++loaded;
    }
  }
  EXPECT_EQ(loaded, 6);
}

TEST_F(TrainVerb, ATypoNamesFileLineKeyAndNearestName) {
  const TempDir dir;
  write_file(dir / "job.yaml",
             "model: m\noutput: o\ndata: {train: a.txt}\noptimizer:\n  learning_rate: 1\n  weight_decy: 0.1\n");
  const auto result = run_crumb("train " + (dir / "job.yaml").string() + " schedule.decay=cosin");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err,
              HasSubstr("job.yaml:6:3: optimizer.weight_decy: unknown key; did you mean \"weight_decay\"?"));
  EXPECT_THAT(result.err, HasSubstr("job.yaml:5:3: optimizer.learning_rate: unknown key"));
  EXPECT_THAT(result.err, HasSubstr("schedule.decay: unknown value \"cosin\"; did you mean \"cosine\"?"));
}

TEST_F(TrainVerb, TrainsFromRandomValuesToAnOrdinaryModel) {
  const auto log = log_of(*shared_ / "teacher");
  EXPECT_LT(log.back().at("valid_cross_entropy").get<double>(),
            log.front().at("valid_cross_entropy").get<double>() - 1.0);
  const Json written = Json::parse(read_file(teacher() / "config.json"));
  EXPECT_FALSE(written.contains("quantization_config"));
  EXPECT_TRUE(fs::exists(teacher() / "tokenizer.json"));
  EXPECT_EQ(run_crumb("inspect " + teacher().string()).exit_code, 0);
}

TEST_F(TrainVerb, TrainingToTwoBitsLowersTheDivergence) {
  const TempDir dir;
  const auto result = run_qat(dir / "run", {"--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_LT(json.at("best").get<double>(), 0.8 * json.at("start").get<double>());
  EXPECT_GT(json.at("lr").get<double>(), 0);
  const auto log = log_of(dir / "run");
  EXPECT_EQ(log.size(), 61U);
  EXPECT_EQ(log.front().at("flipped_share").get<double>(), 0);
  EXPECT_GT(log.back().at("flipped_share").get<double>(), 0);
  EXPECT_GT(log.back().at("weight_distance").get<double>(), 0);
  EXPECT_THAT(read_file(dir / "run/curves.html"), HasSubstr("<svg"));
  EXPECT_TRUE(Json::parse(read_file(dir / "run/model/config.json")).contains("quantization_config"));
}

TEST_F(TrainVerb, KilledAtAnyMomentItEndsBitForBitAsIfNothingHappened) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "whole").exit_code, 0);
  const fs::path run = dir / "killed", log = run / "log.jsonl";
  const auto seed = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  SCOPED_TRACE("moments of the kills by seed " + std::to_string(seed));
  const Rng rng(seed);
  int kills = 0;
  for (uint64_t attempt = 0; attempt < 5; ++attempt) {
    RunningCrumb crumb(qat(run), dir / "err");
    if (!crumb.wait_for_lines(log, 1 + rng.below(attempt, 60))) continue;  // it was done first
    std::this_thread::sleep_for(std::chrono::microseconds(rng.below(100 + attempt, 20000)));
    crumb.end(SIGKILL);
    ++kills;
  }
  EXPECT_GT(kills, 0);
  const auto last = run_qat(run);
  ASSERT_EQ(last.exit_code, 0) << last.err;
  expect_same_run(run, dir / "whole");
  for (const auto& entry : fs::recursive_directory_iterator(run))
    EXPECT_THAT(entry.path().filename().string(), Not(HasSubstr(".tmp-")));
}

TEST_F(TrainVerb, AnInterruptedRunSavesAndGoesOn) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "whole").exit_code, 0);
  const fs::path run = dir / "stopped";
  size_t lines = 14;
  for (const int signal : {SIGTERM, SIGINT}) {
    RunningCrumb crumb(qat(run), dir / "err");
    ASSERT_TRUE(crumb.wait_for_lines(run / "log.jsonl", lines)) << read_file(dir / "err");
    EXPECT_EQ(crumb.end(signal), 1);
    const int64_t step = steps_of(run).back();
    EXPECT_THAT(read_file(dir / "err"), HasSubstr("stopped by a signal after step " + std::to_string(step)));
    EXPECT_TRUE(fs::exists(run / "checkpoints" / ("step-0000" + std::to_string(step)) / "state.json")) << step;
    lines += 20;
  }
  ASSERT_EQ(run_qat(run).exit_code, 0);
  expect_same_run(run, dir / "whole");
}

TEST_F(TrainVerb, OnAGpuItLearnsAsOnTheCpuAndGoesOnBitForBit) {
  const TempDir dir;
  const auto whole = run_qat(dir / "whole", {"device=cuda", "--json"});
  if (whole.err.find("Torch sees no GPU") != std::string::npos) {
    EXPECT_EQ(whole.exit_code, 2);
    EXPECT_FALSE(fs::exists(dir / "whole"));
    CRUMB_CANNOT_RUN("CRUMB_REQUIRE_CUDA", "needs a GPU that Torch sees, and a build with its libraries");
  }
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const auto here = run_qat(dir / "here", {"device=cpu", "--json"});
  const Json gpu = Json::parse(whole.out), cpu = Json::parse(here.out);
  EXPECT_NEAR(gpu.at("start").get<double>(), cpu.at("start").get<double>(), 1e-3 * cpu.at("start").get<double>());
  EXPECT_NEAR(gpu.at("best").get<double>(), cpu.at("best").get<double>(), 0.1 * cpu.at("best").get<double>());
  const fs::path run = dir / "stopped";
  RunningCrumb crumb(qat(run, {"device=cuda"}), dir / "err");
  ASSERT_TRUE(crumb.wait_for_lines(run / "log.jsonl", 14)) << read_file(dir / "err");
  EXPECT_EQ(crumb.end(SIGTERM), 1);
  ASSERT_EQ(run_qat(run, {"device=cuda"}).exit_code, 0);
  expect_same_run(run, dir / "whole");
}

TEST_F(TrainVerb, OtherThreadsWarnThatTheEndWillDiffer) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "run", {"schedule.tokens=320"}).exit_code, 0);
  const auto other = run_qat(dir / "run", {"schedule.tokens=640", "threads=1"});
  EXPECT_EQ(other.exit_code, 0);
  EXPECT_THAT(other.err, HasSubstr("began with 2 threads"));
}

TEST_F(TrainVerb, AChangedJobIsRefusedAndALongerOneGoesOn) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "run").exit_code, 0);
  const auto changed = run_qat(dir / "run", {"optimizer.weight_decay=0.5", "seed=3"});
  EXPECT_EQ(changed.exit_code, 2);
  EXPECT_THAT(changed.err, HasSubstr("optimizer.weight_decay: 0, now 0.5"));
  EXPECT_THAT(changed.err, HasSubstr("seed: 0, now 3"));
  EXPECT_TRUE(is_one_line(changed.err)) << changed.err;
  EXPECT_EQ(log_of(dir / "run").size(), 61U);
  const auto longer =
      run_qat(dir / "run", {"schedule.tokens=2240", "checkpoint.keep=1", "checkpoint.every=20", "validate.every=10"});
  EXPECT_EQ(longer.exit_code, 0) << longer.err;
  EXPECT_THAT(longer.err, HasSubstr("its learning rate had come to its end"));
  EXPECT_EQ(steps_of(dir / "run").back(), 70);
  const auto shorter = run_qat(dir / "run", {"schedule.tokens=640"});
  EXPECT_EQ(shorter.exit_code, 2);
  EXPECT_THAT(shorter.err, HasSubstr("schedule.tokens: 640 is less than the 2,240"));
  EXPECT_THAT(read_file(dir / "run/job.yaml"), HasSubstr("tokens: 2240"));
  EXPECT_EQ(log_of(dir / "run").size(), 71U);
}

TEST_F(TrainVerb, OutputThatIsNotARunIsLeftAlone) {
  const TempDir dir;
  fs::create_directories(dir / "mine");
  write_file(dir / "mine/notes.txt", "keep");
  const auto refused = run_qat(dir / "mine");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("exists and is not a training run"));
  EXPECT_THAT(refused.err, HasSubstr("--force"));
  EXPECT_FALSE(fs::exists(dir / "mine/job.yaml"));
  write_file(dir / "mine/job.yaml", "services: {web: {image: nginx}}\n");
  for (const std::vector<std::string>& force : {std::vector<std::string>{}, {"--force"}})
    EXPECT_THAT(run_qat(dir / "mine", force).err, HasSubstr("job.yaml is not the job of a training run"));
  fs::remove(dir / "mine/job.yaml");
  write_file(dir / "mine/model", "my notes on a model");
  EXPECT_THAT(run_qat(dir / "mine", {"--force"}).err, HasSubstr("model exists and is not of a training run"));
  EXPECT_EQ(read_file(dir / "mine/model"), "my notes on a model");
  fs::remove(dir / "mine/model");
  const auto forced = run_qat(dir / "mine", {"--force", "schedule.tokens=64"});
  EXPECT_EQ(forced.exit_code, 0) << forced.err;
  EXPECT_EQ(read_file(dir / "mine/notes.txt"), "keep");
  write_file(dir / "file", "");
  EXPECT_THAT(run_qat(dir / "file/run").err, HasSubstr("is not a folder"));
}

TEST_F(TrainVerb, ARunKilledBeforeItsFirstStepStartsAgain) {
  const TempDir dir;
  fs::create_directories(dir / "run/tokens");
  write_file(dir / "run/tokens/.0123.tokens.tmp-1-0", "half");
  write_file(dir / "run/.job.yaml.tmp-1-1", "half");
  const auto result = run_qat(dir / "run", {"schedule.tokens=64"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_FALSE(fs::exists(dir / "run/.job.yaml.tmp-1-1"));
  EXPECT_FALSE(fs::exists(dir / "run/tokens/.0123.tokens.tmp-1-0"));
}

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

TEST_F(TrainVerb, ForceTakesAwayNothingBeforeTheJobHasBeenOpened) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "run", {"schedule.tokens=64"}).exit_code, 0);
  const auto log = read_file(dir / "run/log.jsonl");
  const auto mistyped = run_qat(dir / "run", {"--force", "teacher=" + (dir / "absent").string()});
  EXPECT_EQ(mistyped.exit_code, 2);
  EXPECT_EQ(read_file(dir / "run/log.jsonl"), log);
  EXPECT_TRUE(fs::exists(dir / "run/model/config.json"));
}

TEST_F(TrainVerb, AnOutputThatHoldsTheModelIsRefused) {
  const TempDir dir;
  fs::create_directories(dir / "mine");
  fs::copy(teacher(), dir / "mine/model", fs::copy_options::recursive);
  auto arguments = qat(dir / "mine", {"--force"});
  arguments[2] = "model=" + (dir / "mine/model").string();
  const auto result = run_crumb(words(arguments));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("which is read; choose another output"));
  EXPECT_TRUE(fs::exists(dir / "mine/model/model.safetensors"));
  arguments[4] = "output=" + (dir / "mine/model").string();
  EXPECT_THAT(run_crumb(words(arguments)).err, HasSubstr("is read by the job"));
  EXPECT_FALSE(fs::exists(dir / "mine/model/job.yaml"));
}

TEST_F(TrainVerb, AQuantizedModelIsNotQuantizedAgain) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "run", {"schedule.tokens=64"}).exit_code, 0);
  auto arguments = qat(dir / "again");
  arguments[2] = "model=" + (dir / "run/model").string();
  const auto result = run_crumb(words(arguments));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("is quantized already"));
}

TEST_F(TrainVerb, AGgufTrainsAsTheFolderItWasMadeFrom) {
  const TempDir dir;
  const auto exported = [&](const fs::path& from, const std::string& target, const std::string& name) {
    const auto result = run_crumb("export " + from.string() + " --to " + target + " -o " + (dir / name).string());
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return dir / name;
  };
  const fs::path folder = exported(teacher(), "hf-bf16", "folder");
  const fs::path gguf = exported(folder, "gguf-bf16", "model.gguf");
  for (const auto& [model, run] : {std::pair{folder, dir / "a"}, std::pair{gguf, dir / "b"}}) {
    const auto result = run_qat(run, {"model=" + model.string(), "schedule.tokens=320"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  EXPECT_TRUE(read_file(dir / "a/model/model.safetensors") == read_file(dir / "b/model/model.safetensors"));
  const auto plan = run_crumb(words(qat(dir / "c", {"model=" + gguf.string(), "--dry-run"})));
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_THAT(plan.out, Not(HasSubstr("weights: ")));  // nothing is unknown of them
}

TEST_F(TrainVerb, OneRunAtATimeWorksInAnOutput) {
  const TempDir dir;
  RunningCrumb first(qat(dir / "run", {"schedule.tokens=64k"}), dir / "err");
  ASSERT_TRUE(first.wait_for_lines(dir / "run/log.jsonl", 2)) << read_file(dir / "err");
  const auto second = run_qat(dir / "run", {"schedule.tokens=64k"});
  EXPECT_EQ(second.exit_code, 2);
  EXPECT_THAT(second.err, HasSubstr("another process is working in"));
}

TEST_F(TrainVerb, AMistakeThatIsCorrectedDoesNotMakeAnotherJob) {
  const TempDir dir;
  const auto wrong = run_qat(dir / "run", {"teacher=" + (dir / "absent").string()});
  EXPECT_EQ(wrong.exit_code, 2);
  const auto corrected = run_qat(dir / "run", {"schedule.tokens=64"});
  EXPECT_EQ(corrected.exit_code, 0) << corrected.err;
}

TEST_F(TrainVerb, WhatFailsAtTheEndIsToldAtTheStart) {
  const TempDir dir;
  const auto absent = run_qat(dir / "run", {"evaluate.text=" + (dir / "absent.txt").string()});
  EXPECT_EQ(absent.exit_code, 2);
  EXPECT_THAT(absent.err, HasSubstr("absent.txt is not a file"));
  const auto export_of_float =
      run_crumb("train " + config("qat/seq_w2.yaml").string() +
                words({"model=" + teacher().string(), "data.train=" + text(), "output=" + (dir / "float").string(),
                       "method.name=none", "export=[gguf-q2_k]", "schedule.tokens=64"}));
  EXPECT_EQ(export_of_float.exit_code, 2);
  EXPECT_FALSE(fs::exists(dir / "run/job.yaml"));
  EXPECT_FALSE(fs::exists(dir / "float/job.yaml"));
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

TEST_F(TrainVerb, AChangedTextOrModelIsRefusedWhenTheRunGoesOn) {
  const TempDir dir;
  write_file(dir / "text.txt", sentences(300));
  fs::copy(teacher(), dir / "model", fs::copy_options::recursive);
  auto arguments = qat(dir / "run");
  arguments[2] = "model=" + (dir / "model").string();
  arguments[3] = "data.train=" + (dir / "text.txt").string();
  arguments[5] = "schedule.tokens=320";
  ASSERT_EQ(run_crumb(words(arguments)).exit_code, 0);
  arguments[5] = "schedule.tokens=640";
  write_file(dir / "text.txt", sentences(301));
  EXPECT_THAT(run_crumb(words(arguments)).err, HasSubstr("the text has changed since the run began"));
  write_file(dir / "text.txt", sentences(300));
  std::string weights = read_file(dir / "model/model.safetensors");
  weights[weights.size() - 100] ^= 1;
  write_file(dir / "model/model.safetensors", weights);
  EXPECT_THAT(run_crumb(words(arguments)).err, HasSubstr("the model has changed since the run began"));
  weights[weights.size() - 100] ^= 1;
  write_file(dir / "model/model.safetensors", weights);
  EXPECT_EQ(run_crumb(words(arguments)).exit_code, 0);
}

TEST_F(TrainVerb, ValidationTextIsNeverTrainedOn) {
  const TempDir dir;
  EXPECT_THAT(run_qat(dir / "run", {"data.valid=" + text()}).err, HasSubstr("is trained on, too"));
  auto arguments = qat(dir / "run");
  arguments[3] = "data.train=[" + text() + ", " + text() + "]";
  EXPECT_THAT(run_crumb(words(arguments)).err, HasSubstr("is given twice"));
}

TEST_F(TrainVerb, ValidationComparesWithTheModelItselfWhoeverTeaches) {
  const TempDir dir;
  const auto first_kl = [&](const std::string& run) { return log_of(dir / run).front().at("valid_kl").get<double>(); };
  ASSERT_EQ(run_qat(dir / "self", {"schedule.tokens=64"}).exit_code, 0);
  // A teacher that has learned less: its predictions are others.
  ASSERT_EQ(run_command(pretrain() + " schedule.tokens=640 output=" + (dir / "young").string()).exit_code, 0);
  const auto taught = run_qat(dir / "taught", {"schedule.tokens=64", "teacher=" + (dir / "young/model").string()});
  ASSERT_EQ(taught.exit_code, 0) << taught.err;
  EXPECT_EQ(first_kl("taught"), first_kl("self"));
  EXPECT_NE(log_of(dir / "taught").at(1).at("kl"), log_of(dir / "self").at(1).at("kl"));
}

TEST_F(TrainVerb, BadTextsAreNamed) {
  const TempDir dir;
  const auto error_with = [&](const std::string& name, const std::string& content,
                              const std::vector<std::string>& more = {}) {
    write_file(dir / name, content);
    auto arguments = qat(dir / "run", more);
    arguments[3] = "data.train=" + (dir / name).string();
    const auto result = run_crumb(words(arguments));
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_TRUE(is_one_line(result.err)) << result.err;
    return result.err;
  };
  EXPECT_THAT(error_with("empty.txt", ""), HasSubstr("empty.txt: the text is empty"));
  EXPECT_THAT(error_with("short.txt", "only this"), HasSubstr("too few for a window of 32"));
  EXPECT_THAT(error_with("chat.jsonl", "{\"messages\": []}\n"), HasSubstr("chat.jsonl:1: chat data"));
  EXPECT_FALSE(fs::exists(dir / "run/job.yaml"));
}

TEST_F(TrainVerb, BadModelsAreNamed) {
  const TempDir dir;
  const auto error_with = [&](const std::string& model) {
    auto arguments = qat(dir / "run");
    arguments[2] = "model=" + model;
    const auto result = run_crumb(words(arguments));
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_TRUE(is_one_line(result.err)) << result.err;
    return result.err;
  };
  write_file(dir / "model.gguf", "GGUF");
  EXPECT_THAT(error_with((dir / "model.gguf").string()),
              HasSubstr("model.gguf: the header runs past the end of the file"));
  EXPECT_THAT(error_with((dir / "absent").string()), HasSubstr("does not exist"));
  EXPECT_THAT(error_with((*shared_ / "blank").string()), HasSubstr("safetensors"));
}

TEST_F(TrainVerb, WeightsThatAreNotNumbersAreNamed) {
  const TempDir dir;
  fs::copy(teacher(), dir / "model", fs::copy_options::recursive);
  std::string weights = read_file(dir / "model/model.safetensors");
  weights.replace(weights.size() - 8, 8, std::string(8, '\xff'));  // NaN in float32
  write_file(dir / "model/model.safetensors", weights);
  auto arguments = qat(dir / "run");
  arguments[2] = "model=" + (dir / "model").string();
  const auto result = run_crumb(words(arguments));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("holds NaN or infinite values"));
  EXPECT_FALSE(fs::exists(dir / "run/job.yaml"));
}

TEST_F(TrainVerb, ALossThatIsNotFiniteStopsTheRun) {
  const TempDir dir;
  const auto result = run_qat(dir / "run", {"optimizer.lr=1e30", "optimizer.grad_clip=0", "schedule.warmup=0"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("is not finite"));
  EXPECT_THAT(result.err, HasSubstr("optimizer.lr"));
  EXPECT_TRUE(is_one_line(result.err)) << result.err;
}

TEST_F(TrainVerb, InitFromGoesOnFromAFinishedRun) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "first").exit_code, 0);
  ASSERT_EQ(run_qat(dir / "second", {"init_from=" + (dir / "first").string()}).exit_code, 0);
  const double end = log_of(dir / "first").back().at("valid_kl"), start = log_of(dir / "second").front().at("valid_kl");
  EXPECT_DOUBLE_EQ(start, end);
  EXPECT_THAT(run_qat(dir / "third", {"init_from=" + (dir / "absent").string()}).err,
              HasSubstr("holds no training checkpoint"));
  fs::remove_all(dir / "first/last");
  EXPECT_THAT(run_qat(dir / "third", {"init_from=" + (dir / "first").string()}).err, HasSubstr("has not finished"));
  EXPECT_FALSE(fs::exists(dir / "third/job.yaml"));
}

TEST_F(TrainVerb, ExportsAndJudgesAtTheEnd) {
  const TempDir dir;
  const auto result =
      run_qat(dir / "run", {"export=[gguf-q4_0, hf-bf16]", "evaluate.text=" + text(), "evaluate.max_windows=8"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(fs::exists(dir / "run/export/gguf-q4_0.gguf"));
  EXPECT_TRUE(fs::exists(dir / "run/export/hf-bf16/config.json"));
  EXPECT_TRUE(fs::exists(dir / "run/report.md"));
  for (const char* report : {"report.json", "export/gguf-q4_0.report.json", "export/hf-bf16.report.json"})
    EXPECT_TRUE(Json::parse(read_file(dir / "run" / report)).is_object()) << report;
  EXPECT_EQ(run_qat(dir / "strict", {"schedule.tokens=64", "evaluate.text=" + text(), "evaluate.max_windows=8",
                                     "evaluate.max_drop={kl: 1e-9}"})
                .exit_code,
            3);
}

TEST_F(TrainVerb, MixesByWeight) {
  const TempDir dir;
  write_file(dir / "a.txt", sentences(150));
  write_file(dir / "b.jsonl", "{\"text\": \"" + std::string(2000, 'z') + "\"}\n");
  auto arguments = qat(dir / "run", {"schedule.tokens=320"});
  arguments[3] = "data.train=[{path: " + (dir / "a.txt").string() +
                 ", weight: 0.75}, {path: " + (dir / "b.jsonl").string() + ", weight: 0.25}]";
  ASSERT_EQ(run_crumb(words(arguments)).exit_code, 0);
  ASSERT_EQ(run_qat(dir / "unmixed", {"schedule.tokens=320"}).exit_code, 0);
  EXPECT_NE(log_of(dir / "run").back().at("loss"), log_of(dir / "unmixed").back().at("loss"));
  arguments[3] = "data.train=[{path: a.txt, weight: 1}, b.txt]";
  EXPECT_THAT(run_crumb(words(arguments)).err, HasSubstr("either every entry has a weight or none"));
}

void flip_bit_in_the_middle(const fs::path& path) {
  std::string bytes = read_file(path);
  bytes[bytes.size() / 2] ^= 1;
  write_file(path, bytes);
}

TEST_F(TrainVerb, ADamagedCheckpointIsPassedOverAndTheEndIsTheSame) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "whole").exit_code, 0);
  ASSERT_EQ(run_qat(dir / "run").exit_code, 0);
  fs::remove_all(dir / "run/last");
  const fs::path masters = dir / "run/checkpoints/step-000060/masters.safetensors";
  flip_bit_in_the_middle(masters);
  const auto result = run_qat(dir / "run");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "warning: " + masters.parent_path().string() +
                            " is damaged (masters.safetensors is not as it was written) and passed over\n");
  expect_same_run(dir / "run", dir / "whole");
}

TEST_F(TrainVerb, InitFromADamagedCheckpointIsRefused) {
  const TempDir dir;
  ASSERT_EQ(run_qat(dir / "first", {"schedule.tokens=64"}).exit_code, 0);
  const fs::path checkpoint = dir / "first/checkpoints/step-000002";
  flip_bit_in_the_middle(checkpoint / "masters.safetensors");
  const auto result = run_qat(dir / "second", {"init_from=" + (dir / "first").string()});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.err, "crumb: init_from: " + checkpoint.string() +
                            " is damaged (masters.safetensors is not as it was written); run its job again, which "
                            "goes on from the one before it\n");
  EXPECT_FALSE(fs::exists(dir / "second/job.yaml"));
}

TEST_F(TrainVerb, AFullDiskIsWarnedOfAndTheRunGoesOnWhenThereIsRoom) {
  const TempDir dir;
  SmallDisk disk(dir / "disk", 500'000, 1000);
  if (!disk.is_mounted()) GTEST_SKIP() << "no disk can be mounted here";
  ASSERT_EQ(run_qat(dir / "whole").exit_code, 0);
  const fs::path run = dir / "disk/run";
  const auto full = run_qat(run);
  EXPECT_EQ(full.exit_code, 1);
  EXPECT_THAT(full.err, HasSubstr("warning: " + run.string() + " may take "));
  EXPECT_THAT(full.err, HasSubstr("lower checkpoint.keep, make room, or choose another output"));
  EXPECT_THAT(full.err, HasSubstr("No space left on device"));
  EXPECT_EQ(std::count(full.err.begin(), full.err.end(), '\n'), 2) << full.err;
  EXPECT_TRUE(fs::exists(run / "checkpoints/step-000010/state.json"));
  disk.grow_to(8'000'000);
  const auto again = run_qat(run);
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_EQ(again.err, "");
  expect_same_run(run, dir / "whole");
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

TEST_F(DryRun, WithoutTextAutoTokensAreUnknown) {
  const Json json = plan("qat/seq_w2.yaml", "llama_3.2_1b.json");
  EXPECT_TRUE(json.at("plan").is_null());
  EXPECT_TRUE(json.at("memory_bytes").is_null());
}

}  // namespace
}  // namespace crumb::testing
