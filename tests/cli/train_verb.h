// What the tests of crumb train share: a trained model, jobs, and what two runs that are the same have in common.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/cli/train_fixture.h"

namespace crumb::testing {

inline fs::path config(const std::string& name) { return source_dir() / "configs" / name; }
inline fs::path fixture(const std::string& name) { return source_dir() / "tests/cli/fixtures" / name; }

inline bool is_one_line(const std::string& text) { return std::count(text.begin(), text.end(), '\n') == 1; }

/// A trained blank model and a text, made once for all tests of the suite.
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

  inline static TempDir* shared_ = nullptr;
};

}  // namespace crumb::testing
