// Weights that become zero: which, how many, and that they stay it in every file.
#include "ptq/pruning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/formats/safetensors.h"
#include "ptq/quantize.h"
#include "quant/codes_folder.h"
#include "quant/scale_search.h"
#include "tests/ptq/story_job.h"
#include "tests/testing/running_crumb.h"
#include "tests/testing/testing.h"

namespace crumb::ptq {
namespace {

namespace fs = testing::fs;
using quant::Grid;
using quant::QuantFormat;
using ::testing::HasSubstr;

TEST(PruningMask, TakesTheLeastOfARowAndOfEqualsTheFirst) {
  const std::vector<float> w = {3, -1, 2, -4, 0, 5, 1, 1,    //
                                2, 2,  2, 2,  2, 2, 2, -2};  // all the same
  const auto half = choose_mask(w.data(), 2, 8, nullptr, {.share = 0.5});
  EXPECT_EQ(half, (std::vector<uint8_t>{1, 0, 1, 1, 0, 1, 0, 0,  //
                                        0, 0, 0, 0, 1, 1, 1, 1}));
  const auto pattern = choose_mask(w.data(), 2, 8, nullptr, {.stay = 1, .of = 4});
  EXPECT_EQ(pattern, (std::vector<uint8_t>{0, 0, 0, 1, 0, 1, 0, 0,  //
                                           0, 0, 0, 1, 0, 0, 0, 1}));
}

TEST(PruningMask, RoundsTheShareOfARow) {
  const std::vector<float> w(10, 1.0f);
  for (const auto& [share, pruned] : {std::pair{0.04, 0}, {0.05, 1}, {0.31, 3}, {0.5, 5}, {0.99, 10}}) {
    const auto mask = choose_mask(w.data(), 1, 10, nullptr, {.share = share});
    EXPECT_EQ(std::ranges::count(mask, 0), pruned) << share;
  }
}

TEST(PruningMask, WeightsOfInputsThatNothingMovesGoFirst) {
  const std::vector<float> w = {100, 1, 2, 3};
  const std::vector<double> sizes = {0, 1, 10, 1};
  EXPECT_EQ(choose_mask(w.data(), 1, 4, sizes.data(), {.share = 0.5}), (std::vector<uint8_t>{0, 0, 1, 1}));
  EXPECT_EQ(choose_mask(w.data(), 1, 4, sizes.data(), {.stay = 1, .of = 2}), (std::vector<uint8_t>{0, 1, 1, 0}));
}

class Pruned : public ::testing::Test {
 protected:
  void SetUp() override { setenv("CRUMB_CACHE", (dir_ / "cache").c_str(), 1); }

  template <class MethodOptions>
  QuantizeJob job(const std::string& output, MethodOptions method, const QuantFormat& format,
                  const PruningOptions& pruning, const std::string& model = "models/stories260K-hf") const {
    QuantizeJob out = testing::story_job(dir_ / output, 512, std::move(method), format);
    out.model = testing::data(model);
    out.pruning = pruning;
    return out;
  }
  static QuantizeReport run(const QuantizeJob& job) {
    ThreadPool pool(1);
    return quantize(job, false, pool);
  }
  static std::string error_of(const QuantizeJob& job) {
    return testing::error_of([&] { run(job); });
  }
  /// Every linear's mask has the amount of the job in each row, and what it takes out is 0.
  static void expect_pruned(const QuantizeJob& job, const QuantizeReport& report) {
    const auto saved = quant::open_checkpoint(job.output);
    const Sparsity sparsity = job.pruning.amount();
    size_t next = 0;
    for (const auto& stored : saved->tensors()) {
      if (stored.desc.role != arch::TensorRole::linear) continue;
      const quant::QuantizedTensor codes = saved->read_codes(stored, 0, stored.desc.rows());
      ASSERT_TRUE(codes.format.has_mask);
      std::vector<float> values(codes.codes.size());
      codes.dequantize(values.data());
      for (size_t i = 0; i < values.size(); ++i) {
        if (codes.mask[i] == 0) {
          ASSERT_EQ(values[i], 0.0f);
        }
      }
      for (int64_t row = 0; row < codes.rows; ++row) {
        const auto begin = codes.mask.begin() + row * codes.cols;
        ASSERT_EQ(std::count(begin, begin + codes.cols, 0), sparsity.pruned_of(codes.cols)) << stored.desc.hf_name;
        for (int64_t i = 0; sparsity.of > 0 && i < codes.cols; i += sparsity.of)
          ASSERT_EQ(std::count(begin + i, begin + i + sparsity.of, 1), sparsity.stay) << stored.desc.hf_name;
      }
      EXPECT_EQ(report.tensors[next++].pruned, codes.rows * sparsity.pruned_of(codes.cols));
    }
    EXPECT_EQ(next, report.tensors.size());
  }
  static double output_error(const QuantizeReport& report) {
    double sum = 0;
    for (const auto& tensor : report.tensors) sum += tensor.output.relative();
    return sum / static_cast<double>(report.tensors.size());
  }

  testing::TempDir dir_;
};

const PruningOptions kMagnitude{.method = "magnitude", .sparsity = 0.5}, kWanda{.method = "wanda", .sparsity = 0.4},
    kSparseGpt{.method = "sparsegpt", .sparsity = 0.5}, kTwoOfFour{.method = "sparsegpt", .pattern = {"2:4"}};

TEST_F(Pruned, EveryMethodKeepsTheMaskOnEveryGridWithAZero) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  const QuantFormat int8{Grid::intn, 8, true, 0}, int4{Grid::intn, 4, false, 4}, int3{Grid::intn, 3, true, 4},
      ternary{Grid::ternary, 2, true, 0}, fp8{Grid::fp8, 8, true, 0};
  const PruningOptions wanda_pattern{.method = "wanda", .pattern = {"1:4"}},
      magnitude_pattern{.method = "magnitude", .pattern = {"3:4"}};
  GptqMethod in_turn;
  in_turn.gptq.act_order = in_turn.gptq.static_groups = false;
  int number = 0;
  const auto name = [&] { return std::to_string(number++); };
  for (QuantizeJob job :
       {job(name(), RtnMethod{}, int8, kMagnitude), job(name(), RtnMethod{}, ternary, magnitude_pattern),
        job(name(), HqqMethod{}, int4, kMagnitude),
        job(name(), RtnMethod{.importance = std::string("activations")}, int8, kWanda),
        job(name(), GptqMethod{}, int4, kWanda), job(name(), in_turn, int3, wanda_pattern),
        job(name(), GptqMethod{}, fp8, kMagnitude), job(name(), GptqMethod{}, int4, kSparseGpt),
        job(name(), GptqMethod{}, int3, kTwoOfFour), job(name(), GptqMethod{}, ternary, kSparseGpt),
        job(name(), GptqMethod{}, fp8, kTwoOfFour), job(name(), BlockwiseMethod{.passes = 1}, int3, kSparseGpt),
        job(name(), BlockwiseMethod{.passes = 1}, ternary, kTwoOfFour),
        job(name(), BlockwiseMethod{.first = "rtn", .passes = 1}, int4, kWanda),
        job(name(), AutoRoundMethod{.iterations = 5}, int4, wanda_pattern)}) {
    SCOPED_TRACE(job.output.string());
    job.masters = true;
    const QuantizeReport report = run(job);
    expect_pruned(job, report);
    // the masters are zero there, too, and what the codes are nearest to
    const auto saved = quant::open_checkpoint(job.output);
    const formats::SafetensorsReader masters(job.output / quant::kMastersFolder);
    for (const auto& stored : saved->tensors()) {
      if (!stored.format) continue;
      quant::QuantizedTensor codes = saved->read_codes(stored, 0, stored.desc.rows());
      std::vector<float> w(codes.codes.size());
      masters.read_rows(masters.at(stored.desc.hf_name), 0, stored.desc.rows(), w.data());
      const auto expected = codes.codes;
      quant::set_nearest_codes(w.data(), codes);
      EXPECT_EQ(codes.codes, expected) << stored.desc.hf_name;
      EXPECT_EQ(masked(w.data(), codes.mask), w) << stored.desc.hf_name;
    }
  }
}

TEST_F(Pruned, NothingIsPrunedAtSparsityZero) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  const QuantFormat int4{Grid::intn, 4, true, 4};
  run(job("plain", GptqMethod{}, int4, {}));
  ::testing::internal::CaptureStderr();
  run(job("zero", GptqMethod{}, int4, {.method = "sparsegpt"}));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("pruning.sparsity: is 0, so nothing is pruned"));
  for (const auto& entry : fs::directory_iterator(dir_ / "plain"))
    EXPECT_TRUE(testing::read_file(entry) == testing::read_file(dir_ / "zero" / entry.path().filename())) << entry;
}

// The masks cost a bit a weight, which a dry run knows.
TEST_F(Pruned, PlansCountTheMasks) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  const QuantFormat int8{Grid::intn, 8, true, 0};
  const QuantizeJob pruned = job("a", RtnMethod{}, int8, kMagnitude), plain = job("b", RtnMethod{}, int8, {});
  const QuantizePlan with = plan_quantize(pruned, false), without = plan_quantize(plain, false);
  int64_t bytes = 0;
  const auto source = quant::open_checkpoint(pruned.model);
  for (const auto& tensor : source->tensors()) {
    if (tensor.desc.role == arch::TensorRole::linear) bytes += tensor.desc.rows() * ((tensor.desc.cols() + 7) / 8);
  }
  EXPECT_EQ(with.total().bytes, without.total().bytes + bytes);
  const QuantizeReport report = run(pruned);
  EXPECT_EQ(report.quantized_bytes, with.total().bytes);
  int64_t stored = 0;
  for (const auto& tensor : quant::open_checkpoint(pruned.output)->tensors()) {
    if (tensor.format) stored += tensor.stored_bytes;
  }
  EXPECT_EQ(stored, with.total().bytes);
  const auto words = testing::run_crumb("inspect " + pruned.output.string());
  EXPECT_THAT(words.out, HasSubstr(" pruned of int8: "));
  EXPECT_THAT(words.out, HasSubstr(" weights, 50.00 %"));
}

TEST_F(Pruned, AKilledRunGoesOnToTheSameFiles) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  CRUMB_NEED_DATA(text, "text/corpus/prose-test.txt");
  QuantizeJob whole = job("whole", GptqMethod{}, {Grid::intn, 4, true, 32}, kTwoOfFour, "models/ref-llama-15m");
  whole.calibration.text = {text};
  const QuantizeReport report = run(whole);
  {
    testing::RunningCrumb crumb({"quantize",
                                 folder.string(),
                                 "--method",
                                 "gptq",
                                 "--grid",
                                 "int",
                                 "--bits",
                                 "4",
                                 "--group-size",
                                 "32",
                                 "-o",
                                 (dir_ / "out").string(),
                                 "calibration.text=" + text.string(),
                                 "calibration.separator=<|endoftext|>",
                                 "calibration.tokens=512",
                                 "calibration.sequence_length=128",
                                 "pruning.method=sparsegpt",
                                 "pruning.pattern=2:4",
                                 "--threads",
                                 "2"},
                                dir_ / "errors");
    ASSERT_TRUE(crumb.wait_for_lines(dir_ / "out.partial/progress.jsonl", 11 + 9))
        << testing::read_file(dir_ / "errors");
    EXPECT_EQ(crumb.end(SIGKILL), 128 + SIGKILL);
  }
  QuantizeJob rest = whole;
  rest.output = dir_ / "out";
  ::testing::internal::CaptureStderr();
  const QuantizeReport resumed = run(rest);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr(" of 4 blocks are done"));
  EXPECT_EQ(resumed.pruned(), report.pruned());
  EXPECT_EQ(resumed.bits_per_weight(), report.bits_per_weight());
  for (const auto& entry : fs::directory_iterator(dir_ / "whole"))
    EXPECT_TRUE(testing::read_file(entry) == testing::read_file(dir_ / "out" / entry.path().filename())) << entry;
}

TEST_F(Pruned, WhatIsMadeUpForLosesLessOfTheOutput) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  CRUMB_NEED_DATA(text, "text/corpus/prose-test.txt");
  const auto error = [&](const std::string& method, const WordOr<std::string, "none">& pattern) {
    const PruningOptions pruning{.method = method, .sparsity = pattern.is_word() ? 0.5 : 0, .pattern = pattern};
    const QuantFormat int8{Grid::intn, 8, true, 0};
    const std::string name = method + pattern.value_or("");
    QuantizeJob job = method == "sparsegpt" ? this->job(name, GptqMethod{}, int8, pruning, "models/ref-llama-15m")
                                            : this->job(name, RtnMethod{.importance = std::string("activations")}, int8,
                                                        pruning, "models/ref-llama-15m");
    job.calibration.text = {text};
    job.calibration.tokens = 1024;
    return output_error(run(job));
  };
  for (const auto& pattern : {WordOr<std::string, "none">(), WordOr<std::string, "none">("2:4")}) {
    const double magnitude = error("magnitude", pattern), wanda = error("wanda", pattern),
                 sparsegpt = error("sparsegpt", pattern);
    EXPECT_LT(wanda, 0.95 * magnitude);
    EXPECT_LT(sparsegpt, 0.8 * wanda);
  }
}

TEST_F(Pruned, ExportedFilesHaveTheZerosOfTheMask) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  CRUMB_NEED_DATA(text, "text/corpus/prose-test.txt");
  struct Target {
    QuantFormat format;
    const char *name, *file;
  };
  for (const Target& target :
       {Target{{Grid::intn, 4, true, 32}, "gguf-q4_0", "a.gguf"},
        Target{{Grid::intn, 8, true, 0}, "gguf-q8_0", "b.gguf"}, Target{{Grid::ternary, 2, true, 0}, "hf-bf16", "c"}}) {
    QuantizeJob job =
        this->job(std::string("codes-") + target.name, GptqMethod{}, target.format, kTwoOfFour, "models/ref-llama-15m");
    job.calibration.text = {text};
    run(job);
    const auto exported = testing::run_crumb("export " + job.output.string() + " --to " + target.name + " -o " +
                                             (dir_ / target.file).string());
    ASSERT_EQ(exported.exit_code, 0) << exported.err;
    const auto saved = quant::open_checkpoint(job.output), file = quant::open_checkpoint(dir_ / target.file);
    for (const auto& stored : saved->tensors()) {
      if (!stored.format) continue;
      const auto codes = saved->read_codes(stored, 0, stored.desc.rows());
      const auto values = quant::read_all(*file, file->tensor(stored.desc.hf_name)),
                 expected = quant::read_all(*saved, stored);
      ASSERT_EQ(values, expected) << stored.desc.hf_name;
      for (size_t i = 0; i < values.size(); i += 4) {
        int kept = 0;
        for (size_t k = i; k < i + 4; ++k) {
          kept += values[k] != 0 ? 1 : 0;
          ASSERT_TRUE(codes.mask[k] != 0 || values[k] == 0) << stored.desc.hf_name << " " << k;
        }
        ASSERT_LE(kept, 2);
      }
    }
  }
}

TEST_F(Pruned, WhatCannotBePrunedIsSaidBeforeAnyWork) {
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  const QuantFormat int8{Grid::intn, 8, true, 0}, ternary{Grid::ternary, 2, true, 0};
  EXPECT_EQ(error_of(job("a", GptqMethod{}, {}, kSparseGpt)),
            "method.grid: seq has no level 0, so it cannot hold pruned weights; pruning is for grid int, ternary, fp8");
  RtnMethod mixed;
  mixed.linears.overrides = {{"down_proj", {.grid = "seq", .bits = 2}}};
  EXPECT_THAT(error_of(job("a", mixed, int8, kMagnitude)),
              ::testing::StartsWith("method.overrides.down_proj.grid: seq has no level 0"));
  EXPECT_EQ(
      error_of(job("a", RtnMethod{}, {Grid::intn, 4, false, 0, false, true}, kMagnitude)),
      "method.zero_point: a float zero point has no level 0, so it cannot hold pruned weights; use integer or none");
  EXPECT_EQ(error_of(job("a", RtnMethod{.init = "absmean"}, ternary, kMagnitude)),
            "method.init: absmean would count the pruned weights; use mse or absmax with pruning");
  EXPECT_EQ(
      error_of(job("a", RtnMethod{}, int8, kWanda)),
      "pruning.method: wanda looks at activations, method rtn at weights alone; use magnitude, or a method with a "
      "calibration text (rtn with method.importance: activations is one)");
  EXPECT_THAT(error_of(job("a", HqqMethod{}, int8, kSparseGpt)),
              ::testing::StartsWith("pruning.method: sparsegpt looks at activations, method hqq at weights alone"));
  GptqMethod in_turn;
  in_turn.gptq.act_order = in_turn.gptq.static_groups = false;
  for (const auto& refused : {job("a", RtnMethod{.importance = std::string("activations")}, int8, kSparseGpt),
                              job("a", AutoRoundMethod{}, int8, kSparseGpt), job("a", in_turn, int8, kSparseGpt),
                              job("a", BlockwiseMethod{.first = "rtn"}, int8, kTwoOfFour)})
    EXPECT_EQ(error_of(refused),
              "pruning.method: sparsegpt needs a method that feeds errors on, with scales from the beginning: gptq, or "
              "blockwise with first: gptq, and static_groups: true; others go with wanda");
  EXPECT_EQ(error_of(job("a", RtnMethod{}, int8, {.method = "magnitude", .pattern = {"4:8"}})),
            "pruning.pattern: 4:8 does not divide 172, the input size of model.layers.0.mlp.down_proj");
  EXPECT_THAT(testing::error_of([&] {
                plan_quantize(job("a", RtnMethod{}, int8, {.method = "magnitude", .pattern = {"4:8"}}), false);
              }),
              HasSubstr("4:8 does not divide 172"));
  EXPECT_EQ(error_of(job("a", RtnMethod{}, int8, {.method = "none", .sparsity = 0.5})),
            "pruning.method: must say which weights go (magnitude, wanda or sparsegpt), since pruning is asked for");
  for (const std::string pattern : {"4:4", "0:4", "2", "2:", ":4", "2:33", "-1:4", "2:4:8", "a:b", " 2:4", ""})
    EXPECT_EQ(error_of(job("a", RtnMethod{}, int8, {.method = "magnitude", .pattern = {pattern}})),
              "pruning.pattern: expected n:m with 0 < n < m <= 32, as 2:4, got \"" + pattern + "\"");
  EXPECT_EQ(error_of(job("a", RtnMethod{}, int8, {.method = "magnitude", .sparsity = 0.5, .pattern = {"2:4"}})),
            "pruning.pattern: says how many weights go, and so does sparsity; give one of them");
  EXPECT_FALSE(fs::exists(dir_ / "a"));
  EXPECT_FALSE(fs::exists(dir_ / "a.partial"));
  const auto command = testing::run_crumb("quantize DIR -o x --grid int pruning.sparsity=0.5 pruning.pattern=4");
  EXPECT_EQ(command.exit_code, 2);
  EXPECT_THAT(command.err, ::testing::AllOf(HasSubstr("pruning.method: must say which weights go"),
                                            HasSubstr("pruning.pattern: expected n:m")));
  EXPECT_THAT(testing::run_crumb("quantize DIR -o x --grid int pruning.method=magnitude pruning.sparsity=1").err,
              HasSubstr("pruning.sparsity"));
}

}  // namespace
}  // namespace crumb::ptq
