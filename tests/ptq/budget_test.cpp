// Bits chosen for a budget, on a small trained model.
#include "ptq/budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "core/formats/safetensors.h"
#include "model/decoder.h"
#include "model/head_loss.h"
#include "ptq/activations.h"
#include "ptq/quantize.h"
#include "ptq/sensitivity.h"
#include "quant/scale_search.h"
#include "tests/testing/running_crumb.h"
#include "tests/testing/testing.h"

namespace crumb::ptq {
namespace {

namespace fs = testing::fs;
using ::testing::HasSubstr;

class Budget : public ::testing::Test {
 protected:
  void SetUp() override { setenv("CRUMB_CACHE", (dir_ / "cache").c_str(), 1); }

  /// Integers of 3 bits, a scale for 32 weights; 2,048 tokens in windows of 128.
  QuantizeJob job(const std::string& output) const {
    QuantizeJob job;
    job.model = testing::data("models/ref-llama-15m");
    job.output = dir_ / output;
    RtnMethod method;
    method.linears.grid = "int";
    method.linears.bits = 3;
    method.linears.group_size = 32;
    job.method = method;
    job.calibration.text = {testing::data("text/corpus/prose-test.txt")};
    job.calibration.separator = "<|endoftext|>";
    job.calibration.tokens = 2048;
    job.calibration.sequence_length = 128;
    return job;
  }
  /// Less than 3 bits for all take: the linears of this model lose so alike by their share of the output that 3 bits
  /// for each are the best choice where they fit.
  QuantizeJob budget_job(const std::string& output) const {
    QuantizeJob job = this->job(output);
    job.budget.bits_per_weight = 3.75;  // a float32 scale a group is one bit
    job.budget.tokens = 512;
    job.budget.choices = {with_bits(2), with_bits(3), with_bits(4)};
    return job;
  }
  static BudgetFormat with_bits(int64_t bits) {
    BudgetFormat format;
    format.bits = bits;
    return format;
  }
  static RtnMethod& method(QuantizeJob& job) { return std::get<RtnMethod>(job.method); }
  static QuantizeReport run(const QuantizeJob& job) {
    ThreadPool pool(2);
    return quantize(job, false, pool);
  }
  static std::string error_of(const QuantizeJob& job) {
    return testing::error_of([&] { plan_quantize(job, false); });
  }
  static void expect_same_files(const fs::path& a, const fs::path& b) {
    for (const auto& entry : fs::recursive_directory_iterator(a)) {
      if (!entry.is_regular_file()) continue;
      EXPECT_TRUE(testing::read_file(entry) == testing::read_file(b / fs::relative(entry, a))) << entry;
    }
  }

  testing::TempDir dir_;
};

TEST_F(Budget, IsKeptByDifferentBitsAndTheFolderHasWhatTheReportSays) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  for (const std::string sensitivity : {"fisher", "error"}) {
    QuantizeJob job = budget_job(sensitivity);
    job.budget.sensitivity = sensitivity;
    const QuantizeReport report = run(job);
    ASSERT_TRUE(report.budget.has_value());
    EXPECT_LE(report.bits_per_weight(), 3.75);
    EXPECT_GT(report.bits_per_weight(), 3.7);
    EXPECT_EQ(report.budget->used_bytes, report.quantized_bytes);
    EXPECT_LE(report.budget->bound, report.budget->loss);
    EXPECT_LT(report.budget->loss, 1.05 * report.budget->bound);
    std::set<int> bits;
    const auto saved = quant::open_checkpoint(job.output);
    ASSERT_EQ(report.budget->lines.size(), report.tensors.size());
    for (size_t i = 0; i < report.tensors.size(); ++i) {
      const auto& line = report.budget->lines[i];
      EXPECT_EQ(line.module, report.tensors[i].module);
      EXPECT_EQ(saved->tensor(line.module + ".weight").format, line.format);
      EXPECT_EQ(line.format.group_size, 32);
      EXPECT_EQ(line.next.has_value(), line.format.bits < 4) << line.module;
      if (line.next) {
        EXPECT_LT(line.next->loss, line.loss);
      }
      bits.insert(line.format.bits);
    }
    EXPECT_GT(bits.size(), 1u);
  }
}

TEST_F(Budget, ItsOverridesInAJobGiveTheSameFolder) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  const QuantizeJob job = budget_job("chosen");
  const QuantizeReport report = run(job);
  const std::string yaml = report.budget->overrides_yaml(std::get<RtnMethod>(job.method).linears);
  EXPECT_THAT(yaml, ::testing::StartsWith("overrides:"));
  EXPECT_THAT(yaml, ::testing::Not(HasSubstr("bits: 3"))) << "those the job says already are left out";
  testing::write_file(dir_ / "overrides.yaml", yaml);
  QuantizeJob pasted = this->job("pasted");
  struct File {
    NamedList<quant::FormatOverride> overrides;
    void visit(ConfigReader& v) { v.field("overrides", overrides, ""); }
  };
  method(pasted).linears.overrides = read_config<File>(parse_yaml_file(dir_ / "overrides.yaml")).overrides;
  run(pasted);
  EXPECT_TRUE(testing::read_file(job.output / "model.safetensors") ==
              testing::read_file(pasted.output / "model.safetensors"));
}

TEST_F(Budget, AKilledRunChoosesTheSameAndGoesOn) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  QuantizeJob whole = budget_job("whole");
  GptqMethod gptq;
  gptq.linears = method(whole).linears;
  whole.method = gptq;
  run(whole);
  QuantizeJob rest = whole;
  rest.output = dir_ / "out";
  testing::write_file(dir_ / "job.yaml", to_yaml(write_config(rest)));
  {
    testing::RunningCrumb crumb({"quantize", (dir_ / "job.yaml").string(), "--threads", "2"}, dir_ / "errors");
    ASSERT_TRUE(crumb.wait_for_lines(dir_ / "out.partial/progress.jsonl", 11 + 9))
        << testing::read_file(dir_ / "errors");
    EXPECT_EQ(crumb.end(SIGKILL), 128 + SIGKILL);
  }
  ::testing::internal::CaptureStderr();
  run(rest);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr(" of 4 blocks are done"));
  expect_same_files(whole.output, rest.output);
}

TEST_F(Budget, LinearsThatOverridesNamesKeepWhatItSaysAndAreCounted) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  QuantizeJob job = budget_job("out");
  quant::FormatOverride eight;
  eight.bits = 8;
  method(job).linears.overrides = {{"*.0.self_attn.q_proj", eight}};
  const QuantizeReport report = run(job);
  EXPECT_LE(report.bits_per_weight(), 3.75);
  EXPECT_EQ(report.budget->lines.size(), report.tensors.size() - 1);
  EXPECT_EQ(quant::open_checkpoint(job.output)->tensor("model.layers.0.self_attn.q_proj.weight").format->bits, 8);
}

TEST_F(Budget, ASizeIsThatOfAllWeightsOfTheOutput) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  QuantizeJob job = budget_job("out");
  job.budget.bits_per_weight = std::nullopt;
  job.budget.size = "12MB";
  const QuantizePlan plan = plan_quantize(job, false);
  ASSERT_TRUE(plan.budget.has_value());
  EXPECT_EQ(plan.budget->bytes, 12000000 - plan.kept_bytes);
  EXPECT_FALSE(fs::exists(dir_ / "out"));
  const QuantizeReport report = run(job);
  int64_t bytes = 0;
  const formats::SafetensorsReader reader(job.output);
  for (const auto& tensor : reader.tensors()) bytes += tensor.bytes;
  bytes -= 16 * std::ssize(report.tensors);  // the shape of each linear
  EXPECT_LE(bytes, 12000000);
  EXPECT_GT(bytes, 11800000);
}

TEST_F(Budget, ThatNoChoiceMeetsIsRefusedWithTheNearest) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  QuantizeJob job = budget_job("out");
  job.budget.bits_per_weight = 2.5;
  EXPECT_EQ(error_of(job),
            "budget.bits_per_weight: 2.5 is less than any of budget.choices gives: the smallest and nearest is 3, the "
            "largest 5");
  job.budget.bits_per_weight = std::nullopt;
  job.budget.size = "1MB";
  EXPECT_THAT(error_of(job), ::testing::MatchesRegex(
                                 "budget.size: 1MB is less than any of budget.choices gives: the smallest and nearest "
                                 "is .* MB, the largest .* MB, with .* of what is not quantized"));
}

TEST_F(Budget, MistakesAreNamed) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  QuantizeJob both = budget_job("out"), none = both, no_size = both, no_text = both, seq = both, group = both,
              grid = both, all = both;
  both.budget.size = "1GB";
  EXPECT_EQ(error_of(both), "budget: bits_per_weight and size are both given; one of them decides");
  none.budget.bits_per_weight = std::nullopt;
  EXPECT_EQ(error_of(none), "budget.choices: for what budget? give budget.bits_per_weight or budget.size");
  no_size.budget.bits_per_weight = std::nullopt;
  no_size.budget.size = "900M";
  EXPECT_EQ(error_of(no_size), "budget.size: \"900M\" is no size; give one such as 900MB or 1.5GB");
  no_text.calibration.text.clear();
  EXPECT_EQ(error_of(no_text),
            "calibration.text: what budget chooses by is measured on a text; give one, such as "
            "calibration.text=[corpus.txt]");
  seq.budget.choices.clear();
  method(seq).linears.grid = "seq";
  method(seq).linears.bits = 2;
  EXPECT_THAT(error_of(seq), ::testing::StartsWith("budget.choices: grid seq leaves nothing to choose"));
  group.budget.choices[1].group_size = 100;
  EXPECT_THAT(error_of(group), ::testing::StartsWith("budget.choices[1].group_size: 100 does not divide 512"));
  grid.budget.choices[2].grid = "ternary";
  EXPECT_THAT(error_of(grid), ::testing::StartsWith("budget.choices[2]"));
  method(all).linears.overrides = {{"*", with_bits(4)}};
  EXPECT_EQ(error_of(all), "budget: method.overrides leaves no linear to choose bits for");
  EXPECT_FALSE(fs::exists(dir_ / "out.partial"));
}

TEST_F(Budget, MoreThanTheDearestChoiceTakesIsSaid) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  QuantizeJob job = budget_job("out");
  job.budget.bits_per_weight = 8;
  ::testing::internal::CaptureStderr();
  plan_quantize(job, false);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("budget.bits_per_weight: 8 is more than the dearest of budget.choices takes, 5; the rest stays "
                        "unused"));
}

/// Mean KL of the model with linear `module` at `format` from the float model.
double measured_kl(const quant::Checkpoint& model, const CalibrationTokens& tokens, const arch::TensorDesc& desc,
                   const quant::QuantFormat& format) {
  const torch::NoGradGuard no_grad;
  model::Decoder decoder(model.spec(), model::checkpoint_source(model));
  decoder.round_small_tensors = true;
  const std::vector<int64_t> ids(tokens.ids.begin(), tokens.ids.end());
  const auto hidden = [&] {
    return decoder.forward(torch::tensor(ids).view({tokens.windows, tokens.length}))
        .final_hidden.view({tokens.windows * tokens.length, -1});
  };
  const torch::Tensor before = hidden(), weight = decoder.linear(desc.id)->weight;
  quant::round_to_nearest(weight.const_data_ptr<float>(), desc.rows(), desc.cols(), format, quant::ScaleInit::mse)
      .dequantize(weight.data_ptr<float>());
  const auto scores = model::head_scores({.hidden = hidden(),
                                          .head = decoder.head_weight(),
                                          .teacher_hidden = before,
                                          .teacher_head = decoder.head_weight(),
                                          .targets = torch::tensor(ids),
                                          .mask = {}});
  return scores.kl / scores.tokens;
}

TEST_F(Budget, WhatIsPredictedIsTheDivergenceOfAModelWithOneLinearQuantized) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  const auto model = quant::open_checkpoint(folder);
  ThreadPool pool(2);
  CalibrationOptions options = job("").calibration;
  const CalibrationTokens tokens = read_calibration(options, *model, pool);
  const quant::QuantFormat format{.grid = quant::Grid::intn, .bits = 4, .group_size = 32};
  std::vector<BudgetLinear> linears;
  for (const auto& stored : model->tensors()) {
    if (stored.desc.role == arch::TensorRole::linear) linears.push_back({stored.desc, {format}});
  }
  ActivationMemory memory(dir_.path(), 1e9);
  const auto predicted = measure_losses(*model, linears, tokens, "fisher", memory, pool);
  double sum = 0, measured_sum = 0;
  for (size_t i = 0; i < linears.size(); i += 3) {
    const double measured = measured_kl(*model, tokens, linears[i].desc, format);
    EXPECT_GT(predicted[i][0], measured / 4) << linears[i].desc.hf_name;
    EXPECT_LT(predicted[i][0], measured * 4) << linears[i].desc.hf_name;
    sum += predicted[i][0];
    measured_sum += measured;
  }
  EXPECT_GT(sum, 0.6 * measured_sum);
  EXPECT_LT(sum, 1.6 * measured_sum);
}

}  // namespace
}  // namespace crumb::ptq
