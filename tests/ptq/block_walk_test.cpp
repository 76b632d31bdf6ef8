// Methods that look at activations, on a small trained model.
#include "ptq/block_walk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/formats/safetensors.h"
#include "kernels/seq.h"
#include "ptq/quantize.h"
#include "qat/fake_quantize.h"
#include "quant/scale_search.h"
#include "tests/ptq/one_block.h"
#include "tests/ptq/spec_cases.h"
#include "tests/ptq/story_job.h"
#include "tests/testing/running_crumb.h"
#include "tests/testing/small_disk.h"
#include "tests/testing/testing.h"

namespace crumb::ptq {
namespace {

namespace fs = testing::fs;
using quant::Grid;
using quant::QuantFormat;

class Calibrated : public ::testing::Test {
 protected:
  void SetUp() override { setenv("CRUMB_CACHE", (dir_ / "cache").c_str(), 1); }

  /// Calibrated on the first stories of a text; 2,048 tokens in windows of 128.
  QuantizeJob job(const std::string& output) const { return testing::story_job(dir_ / output, 2048); }
  template <class MethodOptions>
  QuantizeJob job(const std::string& output, MethodOptions method, const QuantFormat& format = {}) const {
    return testing::story_job(dir_ / output, 2048, std::move(method), format);
  }
  static QuantizeReport run(const QuantizeJob& job) {
    ThreadPool pool(2);
    return quantize(job, false, pool);
  }
  static std::string error_of(const QuantizeJob& job) {
    return testing::error_of([&] { run(job); });
  }
  static double output_error(const QuantizeReport& report) {
    double sum = 0;
    for (const auto& tensor : report.tensors) sum += tensor.output.relative();
    return sum / static_cast<double>(report.tensors.size());
  }
  static void expect_same_files(const fs::path& a, const fs::path& b) {
    for (const auto& entry : fs::recursive_directory_iterator(a)) {
      if (!entry.is_regular_file()) continue;
      EXPECT_TRUE(testing::read_file(entry) == testing::read_file(b / fs::relative(entry, a))) << entry;
    }
  }

  testing::TempDir dir_;
};

TEST_F(Calibrated, FeedbackLosesLessOfTheOutputThanRoundingToNearest) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  for (const QuantFormat& format :
       {QuantFormat{}, QuantFormat{Grid::intn, 4, true, 4}, QuantFormat{Grid::intn, 3, false, 0},
        QuantFormat{Grid::intn, 3, false, 0, false, true}}) {
    const std::string name = format.type_name();
    const double gptq = output_error(run(job("gptq-" + name, GptqMethod{}, format))),
                 weighted =
                     output_error(run(job("rtn-" + name, RtnMethod{.importance = std::string("activations")}, format)));
    EXPECT_GT(gptq, 0);
    EXPECT_LT(gptq, 0.8 * weighted) << name;
  }
}

// The report's numbers are those of the files, and the masters are what the codes are nearest to.
TEST_F(Calibrated, MastersRoundToTheCodes) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  for (QuantizeJob job : {job("gptq", GptqMethod{}), job("int", GptqMethod{}, {Grid::intn, 3, true, 4}),
                          job("minima", GptqMethod{}, {Grid::intn, 3, false, 4, false, true}),
                          job("trained-minima", BlockwiseMethod{.passes = 1}, {Grid::intn, 2, false, 4, false, true}),
                          job("trained", BlockwiseMethod{.passes = 1}), job("rtn", RtnMethod{})}) {
    job.masters = true;
    run(job);
    const auto saved = quant::open_checkpoint(job.output);
    const formats::SafetensorsReader masters(job.output / quant::kMastersFolder);
    for (const auto& stored : saved->tensors()) {
      if (stored.desc.role != arch::TensorRole::linear) continue;
      std::vector<float> w(static_cast<size_t>(stored.desc.elements()));
      masters.read_rows(masters.at(stored.desc.hf_name), 0, stored.desc.rows(), w.data());
      quant::QuantizedTensor codes = saved->read_codes(stored, 0, stored.desc.rows());
      const std::vector<uint8_t> expected = codes.codes;
      quant::set_nearest_codes(w.data(), codes);
      EXPECT_EQ(codes.codes, expected) << job.output << " " << stored.desc.hf_name;
    }
  }
}

TEST_F(Calibrated, AKilledRunGoesOnToTheSameFilesAndTheSameReport) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  CRUMB_NEED_DATA(text, "text/corpus/prose-test.txt");
  const std::vector<std::tuple<std::string, QuantizeJob, std::string>> cases = {
      {"gptq", job("gptq", GptqMethod{.gptq = {.error_propagation = 0.5}}), "method.error_propagation=0.5"},
      {"blockwise", job("blockwise", BlockwiseMethod{.passes = 1}), "method.passes=1"},
      {"awq", job("awq", AwqMethod{.grid_points = 4}), "method.grid_points=4"},
      {"smoothquant", job("smoothquant", SmoothQuantMethod{.alpha = 0.5}), "method.alpha=0.5"}};
  for (const auto& [method, one, option] : cases) {
    QuantizeJob whole_job = one;
    const std::string activations = method == "smoothquant" ? "int" : "none";
    whole_job.activations.grid = activations;
    whole_job.model = folder;
    whole_job.masters = true;
    whole_job.calibration.text = {text};
    const QuantizeReport whole = run(whole_job);
    const fs::path output = dir_ / (method + "-out"), partial = dir_ / (method + "-out.partial");
    {
      testing::RunningCrumb crumb(
          {"quantize", folder.string(), "--method", method, "-o", output.string(), "masters=true",
           "calibration.text=" + text.string(), "calibration.separator=<|endoftext|>", "calibration.tokens=2048",
           "calibration.sequence_length=128", option, "activations.grid=" + activations, "--threads", "2"},
          dir_ / "errors");
      // the head of the record, 10 kept tensors, the first block and more; of awq, which changes norms, the second
      // block but for its last linear
      ASSERT_TRUE(crumb.wait_for_lines(partial / "progress.jsonl", 11 + 9)) << testing::read_file(dir_ / "errors");
      EXPECT_EQ(crumb.end(SIGKILL), 128 + SIGKILL);
    }
    ASSERT_FALSE(fs::exists(output));
    QuantizeJob rest = whole_job;
    rest.output = output;
    rest.calibration.memory = 1.0;  // where activations lie does not matter
    ::testing::internal::CaptureStderr();
    const QuantizeReport resumed = run(rest);
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), ::testing::HasSubstr(" of 4 blocks are done"));
    expect_same_files(whole_job.output, output);
    ASSERT_EQ(resumed.tensors.size(), whole.tensors.size());
    for (size_t i = 0; i < whole.tensors.size(); ++i) {
      EXPECT_EQ(resumed.tensors[i].module, whole.tensors[i].module);
      EXPECT_EQ(resumed.tensors[i].output.error_square, whole.tensors[i].output.error_square);
      EXPECT_EQ(resumed.tensors[i].largest_input, whole.tensors[i].largest_input);
    }
  }
}

TEST_F(Calibrated, ActivationsInFilesGiveTheSameModel) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  const QuantizeJob in_memory = job("memory", BlockwiseMethod{.passes = 1});
  QuantizeJob in_files = job("files", BlockwiseMethod{.passes = 1});
  in_files.calibration.memory = 0.0;
  run(in_memory);
  run(in_files);
  expect_same_files(in_memory.output, in_files.output);
}

TEST_F(Calibrated, ADiskThatIsFullOfActivationsEndsTheRunInOneLine) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  const testing::SmallDisk disk(dir_ / "disk", 1 << 20);
  if (!disk.is_mounted()) GTEST_SKIP() << "a small file system cannot be mounted here";
  QuantizeJob job = this->job("disk/out", GptqMethod{});
  job.calibration.memory = 0.0;
  job.calibration.tokens = 16384;
  EXPECT_THAT(error_of(job), ::testing::HasSubstr("no room for"));
}

TEST_F(Calibrated, WhatTheTextLacksIsSaid) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  QuantizeJob none = job("a", GptqMethod{}), missing = none, few = none, longer = none, short_text = none;
  none.calibration.text.clear();
  EXPECT_THAT(error_of(none), ::testing::StartsWith("calibration.text: this method looks at activations; give a text"));
  missing.calibration.text = {dir_ / "absent.txt"};
  EXPECT_THAT(error_of(missing), ::testing::AllOf(::testing::StartsWith("calibration.text: "),
                                                  ::testing::HasSubstr("absent.txt does not exist")));
  QuantizeJob less = job("a", GptqMethod{});
  less.calibration.tokens = 100;
  EXPECT_EQ(error_of(less), "calibration.tokens: 100 are less than one window of 128 (calibration.sequence_length)");
  few.calibration.tokens = 1 << 30;
  EXPECT_THAT(error_of(few), ::testing::MatchesRegex("calibration.tokens: 1073741824 asked for, the texts have .* in "
                                                     "windows of 128; give more text, or ask for less"));
  longer.calibration.sequence_length = 1024;
  EXPECT_EQ(error_of(longer), "calibration.sequence_length: 1024 is more than the 512 of the model");
  testing::write_file(dir_ / "short.txt", "Once upon a time");
  short_text.calibration.text = {dir_ / "short.txt"};
  EXPECT_THAT(error_of(short_text), ::testing::HasSubstr("less than one window of 128"));
  // a dry run says the same
  EXPECT_THAT(testing::error_of([&] { plan_quantize(missing, false); }), ::testing::HasSubstr("does not exist"));
  EXPECT_FALSE(fs::exists(dir_ / "a"));
  EXPECT_FALSE(fs::exists(dir_ / "a.partial"));
}

TEST_F(Calibrated, MistakesOfTheTextLeaveUnfinishedWorkAlone) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  QuantizeJob job = this->job("out", GptqMethod{});
  fs::create_directories(dir_ / "out.partial");
  const auto base = quant::open_checkpoint(job.model);
  { quant::CodesFolder other(dir_ / "out.partial", *base, {}, {}, "another job"); }
  job.calibration.text.clear();
  ThreadPool pool(2);
  EXPECT_THAT(testing::error_of([&] { quantize(job, /*force=*/true, pool); }),
              ::testing::StartsWith("calibration.text: "));
  EXPECT_TRUE(fs::exists(dir_ / "out.partial/progress.jsonl"));
}

TEST_F(Calibrated, TrainingOfBlocksWantsEqualSteps) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  const QuantFormat fp8{Grid::fp8, 8, true, 0};
  EXPECT_EQ(error_of(job("a", AutoRoundMethod{}, fp8)),
            "method.grid: training of blocks knows grids of equal steps; fp8 has none");
  run(job("b", AutoRoundMethod{.iterations = 3, .batch_size = 1000}, {Grid::ternary, 2, true, 0}));
}

TEST_F(Calibrated, ActivationsThatAreNotFiniteNameTheirLinear) {
  torch::Tensor x = torch::ones({2, 4, 8});
  x[1][2][3] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(testing::error_of([&] { measure_inputs(x, 1, 0, "model.layers.3.mlp.down_proj"); }),
            "model.layers.3.mlp.down_proj: its inputs are not finite on the calibration text");
}

TEST_F(Calibrated, DriftIsTheProductOfWhatIsMissingAndWhatIsThere) {
  torch::manual_seed(2);
  const torch::Tensor x = torch::randn({3, 8, 5}), f = x + 0.1 * torch::randn({3, 8, 5});
  const InputStatistics inputs = measure_inputs(x, 2, 0, "", nullptr, f);
  const torch::Tensor flat = x.reshape({-1, 5}).to(torch::kFloat64),
                      missing = f.reshape({-1, 5}).to(torch::kFloat64) - flat;
  EXPECT_TRUE(torch::allclose(inputs.drift.to(torch::kFloat64), missing.t().mm(flat) / 24, 1e-5, 1e-7));
  EXPECT_TRUE(torch::equal(inputs.gram, measure_inputs(x, 2, 0, "").gram));
  // A token that weighs less does so in both.
  torch::Tensor large = x.clone();
  large[1][3] *= 100;
  const InputStatistics capped = measure_inputs(large, 3, 4, "", nullptr, large * 1.5);
  EXPECT_TRUE(torch::allclose(capped.drift, 0.5 * capped.gram, 1e-4, 1e-6));
}

// The least squares solved directly, in double: V of least |W F - V X|^2 + damping |V - W|^2.
TEST_F(Calibrated, ErrorPropagationAimsAtTheOutputsOfTheFloatModel) {
  const testing::RandomModel model(testing::spec_cases()[2].spec);  // 28 inputs, fewer than tokens
  for (const bool rounds_inputs : {false, true}) {
    std::map<double, double> losses;
    double least = 0;
    for (const double share : {0.0, 0.5, 1.0}) {
      testing::OneBlock one(model, 0, {Grid::intn, 8, true, 0});
      BlockWork& work = one.work();
      const quant::ActivationRounder rounder({Grid::intn, 8});
      if (rounds_inputs) work.rounder = &rounder;
      torch::manual_seed(3);
      work.float_residual = work.residual + 0.3 * work.residual * torch::randn_like(work.residual);
      const torch::Tensor w = work.linear(arch::Slot::q)->weight.detach().clone(),
                          f = GroupedPass(work, work.float_residual.clone()).input().flatten(0, 1).to(torch::kFloat64);
      torch::Tensor x = GroupedPass(work, work.residual.clone()).input();
      if (rounds_inputs) x = rounded(x, rounder);
      x = x.flatten(0, 1).to(torch::kFloat64);
      make_gptq({.damping = 0.01, .error_propagation = share}, quant::ScaleInit::mse)->quantize(work);
      const torch::Tensor q = dequantized(work.results.at(arch::Slot::q).codes).to(torch::kFloat64),
                          wide = w.to(torch::kFloat64);
      const auto loss = [&](const torch::Tensor& v) {
        return (f.mm(wide.t()) - x.mm(v.t())).square().sum().item<double>();
      };
      const torch::Tensor gram = x.t().mm(x);
      const torch::Tensor damped = gram + torch::eye(gram.size(0), torch::kFloat64) * (0.01 * gram.diagonal().mean());
      const torch::Tensor best = wide + wide.mm((f - x).t().mm(x)).mm(torch::inverse(damped)),
                          aim = wide.lerp(best, share);
      // 8 bits a row, whose errors are fed on: far less than the distance to the weights as they were
      EXPECT_LT((q - aim).norm().item<double>(), 0.15 * (best - wide).norm().item<double>()) << share;
      losses[share] = loss(q);
      least = loss(best);
    }
    EXPECT_LT(losses[1], 1.05 * least);
    EXPECT_LT(losses[1], 0.9 * losses[0.5]);
    EXPECT_LT(losses[0.5], 0.9 * losses[0]);
  }
}

TEST_F(Calibrated, TheLastBlockIsQuantizedAlikeWithoutItsOutput) {
  const testing::RandomModel model(testing::spec_cases()[2].spec);
  std::vector<std::vector<uint8_t>> codes;
  for (const bool needs_output : {true, false}) {
    testing::OneBlock one(model, 0);
    BlockWork& work = one.work();
    const torch::Tensor input = work.residual.clone();
    work.needs_output = needs_output;
    make_gptq({}, quant::ScaleInit::mse)->quantize(work);
    EXPECT_EQ(work.results.size(), work.formats.size());
    for (const auto& [slot, result] : work.results) codes.push_back(result.codes.codes);
    const torch::Tensor output = work.block.forward(input, work.context);
    EXPECT_EQ(torch::allclose(work.residual, output, 1e-4, 1e-4), needs_output);
  }
  ASSERT_EQ(codes.size(), 14);
  for (size_t i = 0; i < 7; ++i) EXPECT_EQ(codes[i], codes[i + 7]) << i;
}

TEST_F(Calibrated, OutputErrorsAreThoseOfTheWholeMatrix) {
  torch::manual_seed(4);
  const torch::Tensor x = torch::randn({700, 450}), w = torch::randn({5, 450}),  // strips of 192, 192 and 66
      q = w + 0.1 * torch::randn({5, 450}), gram = x.t().mm(x) / 700;
  const ptq::OutputError found = ptq::output_error(w, q, gram);
  const auto exact = [&](const torch::Tensor& v) {
    return x.to(torch::kFloat64).mm(v.to(torch::kFloat64).t()).square().sum().item<double>() / 700;
  };
  EXPECT_NEAR(found.error_square, exact(w - q), 1e-5 * exact(w - q));
  EXPECT_NEAR(found.output_square, exact(w), 1e-5 * exact(w));
}

TEST_F(Calibrated, ErrorPropagationLeavesWhatReadsFloatsAlone) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  // Where all prefixes are float, the aim is the weight itself: the first group of the first block.
  const QuantizeJob plain = job("plain", GptqMethod{}),
                    aimed = job("aimed", GptqMethod{.gptq = {.error_propagation = 1}});
  run(plain);
  run(aimed);
  const auto a = quant::open_checkpoint(plain.output), b = quant::open_checkpoint(aimed.output);
  int same = 0, different = 0;
  for (const auto& stored : a->tensors()) {
    if (stored.desc.role != arch::TensorRole::linear) continue;
    const auto codes = [&](const quant::Checkpoint& model) {
      return model.read_codes(model.tensor(stored.desc.id), 0, stored.desc.rows()).codes;
    };
    const bool is_first =
        stored.desc.id.layer == 0 && (stored.desc.id.slot == arch::Slot::q || stored.desc.id.slot == arch::Slot::k ||
                                      stored.desc.id.slot == arch::Slot::v);
    if (is_first) {
      EXPECT_EQ(codes(*a), codes(*b)) << stored.desc.hf_name;
    }
    (codes(*a) == codes(*b) ? same : different) += 1;
  }
  EXPECT_EQ(same, 3);
  EXPECT_GT(different, 20);
}

TEST_F(Calibrated, ACapLetsAFewTokensWeighNoMoreThanTheirShare) {
  torch::Tensor x = torch::randn({1, 64, 8});
  x[0][5] *= 1000;
  const InputStatistics plain = measure_inputs(x, 1, 0, ""), capped = measure_inputs(x, 1, 4, "");
  EXPECT_EQ(plain.capped_tokens, 0);
  EXPECT_GE(capped.capped_tokens, 1);
  EXPECT_GT(plain.gram.diagonal().sum().item<double>(), 1000 * capped.gram.diagonal().sum().item<double>());
  EXPECT_EQ(plain.largest, capped.largest);
  const torch::Tensor rows = x.view({64, 8});
  EXPECT_TRUE(torch::allclose(plain.gram, rows.t().mm(rows) / 64, 1e-4, 1e-3));
}

// Every method, from its section to the folder and to the file that holds it exactly.
TEST_F(Calibrated, EveryMethodTakesFloatZeroPoints) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  const QuantFormat format{Grid::intn, 4, false, 32, false, true};
  HqqMethod hqq;
  AwqMethod awq, awq_gptq;
  awq_gptq.rounding = "gptq";
  AutoRoundMethod autoround;
  autoround.iterations = 4;
  for (const QuantizeJob& job :
       {job("rtn", RtnMethod{}, format), job("weighted", RtnMethod{.importance = std::string("activations")}, format),
        job("hqq", hqq, format), job("gptq", GptqMethod{}, format), job("awq", awq, format),
        job("awq-gptq", awq_gptq, format), job("autoround", autoround, format),
        job("blockwise", BlockwiseMethod{.passes = 1}, format)}) {
    auto job_of_up = job;  // whose rows alone are multiples of 32
    std::visit([](auto& method) { method.linears.overrides = {{"*down_proj", {.group_size = 4}}}; }, job_of_up.method);
    const QuantizeReport report = run(job_of_up);
    EXPECT_LT(report.total().relative(), 0.02) << job.output;
    const auto saved = quant::open_checkpoint(job.output);
    const auto& up = saved->tensor("model.layers.0.mlp.up_proj.weight");
    ASSERT_EQ(up.format, format) << job.output;
    for (const float minimum : saved->read_codes(up, 0, up.desc.rows()).minima)
      ASSERT_EQ(quant::round_minimum(minimum), minimum);
  }
}

TEST_F(Calibrated, TrainingABlockBringsItsOutputNearer) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  const double before = output_error(run(job("gptq", GptqMethod{})));
  ::testing::internal::CaptureStderr();
  run(job("trained", BlockwiseMethod{.passes = 4}));
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_GT(before, 0);
  // every block says what it was and became; most are better for it
  size_t blocks = 0, left_out = 0;
  for (size_t at = 0; (at = log.find("error of its output", at)) != std::string::npos; ++at) ++blocks;
  for (size_t at = 0; (at = log.find("training is left out", at)) != std::string::npos; ++at) ++left_out;
  EXPECT_EQ(blocks, 5u);
  EXPECT_LE(left_out, 2u);
}

// --- fake quantization on any grid

struct GridCase {
  QuantFormat format;
};
class FakeQuantize : public ::testing::TestWithParam<GridCase> {};

TEST_P(FakeQuantize, IsTheValueOfTheNearestCodeWithLsqsGradients) {
  const QuantFormat& format = GetParam().format;
  torch::manual_seed(3);
  const torch::Tensor w = torch::randn({6, 64}) * 0.3;
  const auto codes = quant::round_to_nearest(w.const_data_ptr<float>(), 6, 64, format, quant::ScaleInit::absmax);
  torch::Tensor weight = w.clone().requires_grad_(true);
  // scales a third smaller, so that some weights lie beyond the outer levels
  torch::Tensor log_scale = (torch::tensor(codes.scales).view({6, -1}) / 1.5).log().requires_grad_(true);
  const torch::Tensor y = qat::fake_quantize(weight, log_scale, qat::zeros_of(codes), format);
  const torch::Tensor grad = torch::randn_like(y);
  y.backward(grad);

  quant::QuantizedTensor expected = codes;
  for (int64_t i = 0; i < log_scale.numel(); ++i)
    expected.scales[static_cast<size_t>(i)] =
        kernels::round_scale(std::exp(log_scale.detach().flatten()[i].item<float>()));
  quant::set_nearest_codes(w.const_data_ptr<float>(), expected);
  EXPECT_TRUE(torch::equal(y.detach(), dequantized(expected)));
  const auto levels = format.levels();
  const int64_t cols = format.group_cols(64);
  int outside = 0;
  for (int64_t g = 0; g < log_scale.numel(); ++g) {
    const quant::GroupScale group = expected.group(static_cast<size_t>(g));
    double sum = 0;
    for (int64_t i = g * cols; i < (g + 1) * cols; ++i) {
      const double x = (w.flatten()[i].item<double>() - group.minimum) / group.scale + group.zero_point,
                   slope = grad.flatten()[i].item<double>(), value = y.flatten()[i].item<double>();
      const bool is_inside = x >= levels.front() - (levels[1] - levels[0]) / 2 &&
                             x <= levels.back() + (levels.back() - levels[levels.size() - 2]) / 2;
      outside += is_inside ? 0 : 1;
      EXPECT_EQ(weight.grad().flatten()[i].item<double>(), is_inside ? slope : 0.0);
      sum += slope * (is_inside ? value - w.flatten()[i].item<double>() : value - group.minimum);
    }
    EXPECT_NEAR(log_scale.grad().flatten()[g].item<double>(), sum, 1e-5);
  }
  EXPECT_GT(outside, 0);
}

INSTANTIATE_TEST_SUITE_P(Grids, FakeQuantize,
                         ::testing::Values(GridCase{{Grid::intn, 4, true, 32}}, GridCase{{Grid::intn, 3, false, 0}},
                                           GridCase{{Grid::intn, 4, false, 16, false, true}},
                                           GridCase{{Grid::intn, 2, true, 16}}));

}  // namespace
}  // namespace crumb::ptq
