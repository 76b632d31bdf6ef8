#include "ptq/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "core/formats/safetensors.h"
#include "quant/codes_folder.h"
#include "quant/scale_search.h"
#include "tests/testing/running_crumb.h"
#include "tests/testing/small_disk.h"
#include "tests/testing/testing.h"

namespace crumb::ptq {
namespace {

namespace fs = testing::fs;

QuantizeJob job_of(const fs::path& model, const fs::path& output) {
  QuantizeJob job;
  job.model = model;
  job.output = output;
  return job;
}

quant::LinearFormats& linears_of(QuantizeJob& job) { return std::get<RtnMethod>(job.method).linears; }

QuantizeReport run(const QuantizeJob& job, bool force = false, int threads = 2) {
  ThreadPool pool(threads);
  return quantize(job, force, pool);
}

/// A copy of the model whose tensor `name` holds `value` at its first place.
void copy_with_value(const fs::path& from, const fs::path& to, const std::string& name, float value) {
  fs::copy(from, to);
  const formats::SafetensorsReader reader(from);
  const auto& tensor = reader.at(name);
  ASSERT_EQ(tensor.dtype, formats::DType::f32);
  std::string bytes = testing::read_file(to / "model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  std::memcpy(bytes.data() + 8 + header + static_cast<size_t>(tensor.offset), &value, sizeof value);
  testing::write_file(to / "model.safetensors", bytes);
}

TEST(Quantize, WritesRoundToNearestOfEveryLinear) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  const QuantizeReport report = run(job_of(folder, dir / "out"));
  const auto source = quant::open_checkpoint(folder), saved = quant::open_checkpoint(dir / "out");
  ASSERT_EQ(saved->kind(), quant::CheckpointKind::codes);
  size_t next = 0;
  for (const auto& stored : saved->tensors()) {
    const auto w = quant::read_all(*source, source->tensor(stored.desc.hf_name)), q = quant::read_all(*saved, stored);
    if (stored.desc.role != arch::TensorRole::linear) {
      for (size_t i = 0; i < w.size(); ++i)
        EXPECT_EQ(q[i], stored.desc.role == arch::TensorRole::norm ? formats::round_to_bf16(w[i]) : w[i]);
      continue;
    }
    const auto expected =
        quant::round_to_nearest(w.data(), stored.desc.rows(), stored.desc.cols(), {}, quant::ScaleInit::mse);
    const auto actual = saved->read_codes(stored, 0, stored.desc.rows());
    EXPECT_EQ(actual.codes, expected.codes);
    EXPECT_EQ(actual.scales, expected.scales);
    // the report's error is that of the file
    double error = 0, power = 0;
    for (size_t i = 0; i < w.size(); ++i) {
      error += std::pow(static_cast<double>(w[i]) - q[i], 2);
      power += std::pow(static_cast<double>(w[i]), 2);
    }
    ASSERT_LT(next, report.tensors.size());
    const auto& tensor = report.tensors[next++];
    EXPECT_EQ(tensor.module, stored.desc.module_name());
    EXPECT_NEAR(tensor.error.relative(), error / power, 1e-9);
    EXPECT_NEAR(tensor.error.sqnr_db(), -10 * std::log10(error / power), 1e-6);
  }
  EXPECT_EQ(next, report.tensors.size());
}

TEST(Quantize, DistortionOfTrainedWeightsLiesInItsBand) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  const testing::TempDir dir;
  const QuantizeReport report = run(job_of(folder, dir / "out"));
  EXPECT_EQ(report.tensors.size(), 28u);
  EXPECT_THAT(report.kinds(),
              ::testing::ElementsAre("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"));
  EXPECT_GT(report.total().relative(), 0.11);
  EXPECT_LT(report.total().relative(), 0.16);
  // 2 bits, and a float for each row of 512 or 1536
  EXPECT_GT(report.bits_per_weight(), 2.0 + 32.0 / 1536);
  EXPECT_LE(report.bits_per_weight(), 2.0 + 32.0 / 512);
  WeightError sum;
  for (const auto& kind : report.kinds()) sum += report.of_kind(kind);
  EXPECT_EQ(sum.weights, report.total().weights);
}

TEST(Quantize, MoreBitsAndSmallerGroupsMeanLessError) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  const auto error = [&](const std::string& name, const RtnMethod& method) {
    QuantizeJob job = job_of(folder, dir / name);
    job.method = method;
    return run(job).total().sqnr_db();
  };
  const double seq = error("seq", {}), seq_g4 = error("seq_g4", {.linears = {.group_size = 4}}),
               absmax = error("absmax", {.init = "absmax"}),
               int4 = error("int4", {.linears = {.grid = "int", .bits = 4}}),
               int4_asymmetric = error("int4a", {.linears = {.grid = "int", .bits = 4, .symmetric = false}}),
               int8 = error("int8", {.linears = {.grid = "int", .bits = 8}, .init = "absmax"});
  EXPECT_GT(seq, absmax);
  EXPECT_GT(seq_g4, seq + 1);
  EXPECT_GT(int4, seq + 6);
  EXPECT_GT(int4_asymmetric, seq + 6);
  EXPECT_GT(int8, int4 + 18);  // four bits more: 24 dB, less what mse saves at 4 bits
}

TEST(Quantize, ResultDoesNotDependOnThreads) {
  CRUMB_NEED_DATA(folder, "models/tiny1m-hf");
  const testing::TempDir dir;
  const auto one = run(job_of(folder, dir / "one"), false, 1), two = run(job_of(folder, dir / "two"), false, 2);
  EXPECT_EQ(one.total().error_square, two.total().error_square);
  EXPECT_EQ(testing::read_file(dir / "one/model.safetensors"), testing::read_file(dir / "two/model.safetensors"));
}

TEST(Quantize, ExcludedLinearsKeepTheirValues) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  QuantizeJob job = job_of(folder, dir / "out");
  linears_of(job).exclude = {"down_proj", "model.layers.0.*"};
  const QuantizeReport report = run(job);
  for (const auto& tensor : report.tensors) {
    EXPECT_NE(tensor.kind(), "down_proj");
    EXPECT_NE(tensor.layer, 0);
  }
  const auto source = quant::open_checkpoint(folder), saved = quant::open_checkpoint(dir / "out");
  const std::string kept = "model.layers.1.mlp.down_proj.weight";
  EXPECT_EQ(quant::read_all(*source, source->tensor(kept)), quant::read_all(*saved, saved->tensor(kept)));
}

/// A copy of the model in which every value of these tensors is multiplied.
void copy_scaled(const fs::path& from, const fs::path& to, const std::map<std::string, float>& factors) {
  fs::copy(from, to);
  const formats::SafetensorsReader reader(from);
  std::string bytes = testing::read_file(to / "model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  for (const auto& [name, factor] : factors) {
    const auto& tensor = reader.at(name);
    ASSERT_EQ(tensor.dtype, formats::DType::f32);
    char* at = bytes.data() + 8 + header + static_cast<size_t>(tensor.offset);
    for (int64_t i = 0; i < tensor.bytes / 4; ++i) {
      float value = 0;
      std::memcpy(&value, at + 4 * i, 4);
      value *= factor;
      std::memcpy(at + 4 * i, &value, 4);
    }
  }
  testing::write_file(to / "model.safetensors", bytes);
}

TEST(Quantize, NamesTheLinearsWhoseScalesAreOutOfRange) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  const std::string up = "model.layers.1.mlp.up_proj", down = "model.layers.1.mlp.down_proj";
  copy_scaled(folder, dir / "model", {{up + ".weight", 1e6f}, {down + ".weight", 1e-6f}});  // the same model
  for (const bool seq : {true, false}) {
    QuantizeJob job = job_of(dir / "model", dir / "out");
    if (!seq) job.method = RtnMethod{.linears = {.grid = "int", .bits = 8}};
    ::testing::internal::CaptureStderr();
    const QuantizeReport report = run(job, true);
    const std::string words = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(words, ::testing::HasSubstr("warning: scales were clamped to the range 2^-17 to 2^14"));
    EXPECT_THAT(words, ::testing::HasSubstr(down + " (64 of 64)"));
    if (seq) {
      EXPECT_THAT(words, ::testing::HasSubstr(up + " ("));  // 1e6 x 0.1 / 2 is beyond 2^14, its 127th is not
    }
    for (const auto& tensor : report.tensors) {
      const bool may_be_clamped = tensor.module == down || tensor.module == up;
      EXPECT_EQ(may_be_clamped ? tensor.scales >= tensor.clamped_scales : tensor.clamped_scales == 0, true)
          << tensor.module;
    }
  }
  ::testing::internal::CaptureStderr();
  run(job_of(folder, dir / "plain"));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), ::testing::Not(::testing::HasSubstr("clamped")));
}

TEST(Quantize, OverridesGiveSomeLinearsAnotherFormat) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  const testing::TempDir dir;
  QuantizeJob job = job_of(folder, dir / "out"), plain = job_of(folder, dir / "plain");
  linears_of(job).overrides = {{"down_proj", {.grid = "int", .bits = 4, .group_size = 32}},
                               {"*.0.*.q_proj", {.group_size = 64}}};
  const QuantizeReport report = run(job), usual = run(plain);
  const auto saved = quant::open_checkpoint(dir / "out"), other = quant::open_checkpoint(dir / "plain");
  const quant::QuantFormat int4{.grid = quant::Grid::intn, .bits = 4, .group_size = 32}, grouped{.group_size = 64};
  for (size_t i = 0; i < report.tensors.size(); ++i) {
    const std::string& module = report.tensors[i].module;
    const auto& tensor = saved->tensor(module + ".weight");
    const bool is_down = report.tensors[i].kind() == "down_proj",
               is_first_q = module == "model.layers.0.self_attn.q_proj";
    EXPECT_EQ(tensor.format, is_down ? int4 : is_first_q ? grouped : quant::QuantFormat{}) << module;
    if (is_down || is_first_q) {
      EXPECT_LT(report.tensors[i].error.relative(), usual.tensors[i].error.relative()) << module;
    } else {
      EXPECT_EQ(quant::read_all(*saved, tensor), quant::read_all(*other, other->tensor(module + ".weight"))) << module;
    }
  }
}

// --- a run that was stopped
// -------------------------------------------------------------------------------------------

TEST(Quantize, AKilledRunGoesOnToTheSameFilesAndTheSameReport) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  const testing::TempDir dir;
  const QuantizeReport whole = run(job_of(folder, dir / "whole"));
  const fs::path record = dir / "out.partial/progress.jsonl";
  {
    testing::RunningCrumb crumb({"quantize", folder.string(), "-o", (dir / "out").string()}, dir / "errors");
    ASSERT_TRUE(crumb.wait_for_lines(record, 16)) << "it was too fast";
    EXPECT_EQ(crumb.end(SIGKILL), 128 + SIGKILL);
  }
  ASSERT_FALSE(fs::exists(dir / "out"));
  ::testing::internal::CaptureStderr();
  const QuantizeReport resumed = run(job_of(folder, dir / "out"));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), ::testing::HasSubstr("of 28 linears are done"));
  EXPECT_FALSE(fs::exists(dir / "out.partial"));
  for (const auto& entry : fs::directory_iterator(dir / "whole"))
    EXPECT_TRUE(testing::read_file(entry) == testing::read_file(dir / "out" / entry.path().filename())) << entry;
  ASSERT_EQ(resumed.tensors.size(), whole.tensors.size());
  for (size_t i = 0; i < whole.tensors.size(); ++i) {
    EXPECT_EQ(resumed.tensors[i].module, whole.tensors[i].module);
    EXPECT_EQ(resumed.tensors[i].error.error_square, whole.tensors[i].error.error_square);
    EXPECT_EQ(resumed.tensors[i].scales, whole.tensors[i].scales);
  }
  EXPECT_EQ(resumed.bits_per_weight(), whole.bits_per_weight());
}

TEST(Quantize, UnfinishedWorkOfOtherSettingsIsKeptUnlessForced) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  const auto base = quant::open_checkpoint(folder);
  fs::create_directories(dir / "out.partial");
  { quant::CodesFolder other(dir / "out.partial", *base, {}, {}, "another job"); }
  EXPECT_THAT(testing::error_of([&] { run(job_of(folder, dir / "out")); }),
              ::testing::HasSubstr("out.partial holds unfinished work of another job"));
  EXPECT_TRUE(fs::exists(dir / "out.partial/progress.jsonl"));
  ::testing::internal::CaptureStderr();
  run(job_of(folder, dir / "out"), /*force=*/true);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              ::testing::HasSubstr("unfinished work of another job is thrown away"));
  EXPECT_FALSE(fs::exists(dir / "out.partial"));
}

TEST(Quantize, ForceTakesAwayNothingThatIsNotItsOwn) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  fs::copy(folder, dir / "out.partial");
  EXPECT_THAT(testing::error_of([&] { run(job_of(dir / "out.partial", dir / "out"), /*force=*/true); }),
              ::testing::HasSubstr("is or holds"));
  EXPECT_THAT(testing::error_of([&] { run(job_of(folder, dir / "out"), /*force=*/true); }),
              ::testing::HasSubstr("holds no unfinished work of this program"));
  EXPECT_TRUE(fs::exists(dir / "out.partial/model.safetensors"));
}

TEST(Quantize, AFullDiskKeepsWhatIsDoneForLater) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  const testing::TempDir dir;
  testing::SmallDisk disk(dir / "disk", 6 << 20);
  if (!disk.is_mounted()) GTEST_SKIP() << "needs the right to mount";
  EXPECT_THAT(testing::error_of([&] { run(job_of(folder, dir / "disk/out")); }),
              ::testing::AllOf(::testing::HasSubstr("No space left on device; what is done stays in"),
                               ::testing::HasSubstr("out.partial, and the same job goes on from it")));
  disk.grow_to(256 << 20);
  run(job_of(folder, dir / "disk/out"));
  run(job_of(folder, dir / "whole"));
  EXPECT_TRUE(testing::read_file(dir / "disk/out/model.safetensors") ==
              testing::read_file(dir / "whole/model.safetensors"));
}

// --- what cannot be done
// ----------------------------------------------------------------------------------------------

TEST(QuantizeErrors, GroupSizeThatDoesNotDivideNamesTheLinearBeforeAnyWork) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  QuantizeJob job = job_of(folder, dir / "out");
  linears_of(job).group_size = 32;
  EXPECT_EQ(testing::error_of([&] { run(job); }),
            "method.group_size: 32 does not divide 172, the input size of model.layers.0.mlp.down_proj");
  EXPECT_FALSE(fs::exists(dir / "out"));
}

TEST(QuantizeErrors, NanWeightNamesTheTensorAndLeavesNothing) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  copy_with_value(folder, dir / "model", "model.layers.2.mlp.up_proj.weight", NAN);
  EXPECT_THAT(testing::error_of([&] { run(job_of(dir / "model", dir / "out")); }),
              ::testing::AllOf(::testing::HasSubstr("model.layers.2.mlp.up_proj.weight"), ::testing::HasSubstr("NaN")));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1) << "only the model is left";
}

TEST(QuantizeErrors, QuantizedSourcesAndModelsWithoutLinearsAreRefused) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  run(job_of(folder, dir / "codes"));
  EXPECT_THAT(testing::error_of([&] { run(job_of(dir / "codes", dir / "again")); }),
              ::testing::HasSubstr("is quantized already"));
  QuantizeJob job = job_of(folder, dir / "out");
  linears_of(job).exclude = {"*"};
  EXPECT_THAT(testing::error_of([&] { run(job); }), ::testing::HasSubstr("leaves no linear"));
}

TEST(QuantizeErrors, ExistingOutputIsKeptUnlessForced) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  fs::create_directories(dir / "out");
  testing::write_file(dir / "out" / "mine.txt", "precious");
  EXPECT_THAT(testing::error_of([&] { run(job_of(folder, dir / "out")); }), ::testing::HasSubstr("--force"));
  EXPECT_TRUE(fs::exists(dir / "out" / "mine.txt"));
  EXPECT_THAT(testing::error_of([&] { run(job_of(folder, dir / "out"), /*force=*/true); }),
              ::testing::HasSubstr("is no model folder"));
  EXPECT_TRUE(fs::exists(dir / "out" / "mine.txt"));
  run(job_of(folder, dir / "model"));
  testing::write_file(dir / "model" / "config.json", "{}");
  run(job_of(folder, dir / "model"), /*force=*/true);
  EXPECT_NE(testing::read_file(dir / "model" / "config.json"), "{}");
}

}  // namespace
}  // namespace crumb::ptq
