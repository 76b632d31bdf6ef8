// Channels in the order of their energy: what it leaves as it was, and what it puts where.
#include "ptq/reorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "ptq/gptq.h"
#include "ptq/quantize.h"
#include "tests/ptq/one_block.h"
#include "tests/ptq/spec_cases.h"
#include "tests/ptq/story_job.h"
#include "tests/testing/testing.h"

namespace crumb::ptq {
namespace {

using arch::Slot;
using testing::NoRounding;
using testing::OneBlock;
using testing::RandomModel;
using torch::Tensor;

/// Of the inputs of a linear of the float block, [cols], in double by a plain loop.
std::vector<double> energy_of(OneBlock& one, Slot slot) {
  const Tensor residual = one.work().residual.clone();
  Tensor input;
  testing::group_of(one.work(), slot, &input);
  one.work().residual.copy_(residual);
  std::vector<double> energy(static_cast<size_t>(input.size(2)));
  const Tensor flat = input.reshape({-1, input.size(2)}).contiguous();
  const float* x = flat.const_data_ptr<float>();
  for (int64_t i = 0; i < flat.numel(); ++i)
    energy[static_cast<size_t>(i % input.size(2))] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return energy;
}

bool falls(const std::vector<double>& values) {
  return std::ranges::adjacent_find(values, [](double a, double b) { return b > a * (1 + 1e-5); }) == values.end();
}

std::multiset<std::vector<float>> rows_of(const Tensor& w) {
  std::multiset<std::vector<float>> rows;
  const Tensor plain = w.contiguous();
  for (int64_t row = 0; row < w.size(0); ++row) {
    const float* first = plain.const_data_ptr<float>() + row * w.size(1);
    rows.emplace(first, first + w.size(1));
  }
  return rows;
}

class ReorderedSpecs : public ::testing::TestWithParam<testing::SpecCase> {};
INSTANTIATE_TEST_SUITE_P(Orders, ReorderedSpecs, ::testing::ValuesIn(testing::spec_cases()),
                         [](const auto& info) { return info.param.name; });
TEST_P(ReorderedSpecs, ComputeWhatTheyDidWithChannelsOfFallingEnergy) {
  const RandomModel model(GetParam().spec);
  for (int layer = 0; layer < static_cast<int>(model.spec().num_layers()); ++layer) {
    OneBlock one(model, layer);
    const Tensor before = one.output(), input = one.work().residual.clone(),
                 up = one.work().linear(Slot::up)->weight.clone();
    ASSERT_FALSE(falls(energy_of(one, Slot::down)));
    make_reordered(std::make_shared<NoRounding>())->quantize(one.work());
    EXPECT_TRUE(torch::equal(one.work().residual, input)) << "what is rounded next reads the block's input";
    const Tensor after = one.output();
    EXPECT_LE((after - before).abs().max().item<double>(), 2e-6 * before.abs().max().item<double>()) << layer;
    EXPECT_TRUE(falls(energy_of(one, Slot::down))) << layer;
    EXPECT_EQ(rows_of(one.work().linear(Slot::up)->weight), rows_of(up)) << "rows move, and stay what they are";

    const arch::GqaSpec& gqa = one.work().block.spec().gqa();
    const std::vector<double> o = energy_of(one, Slot::o);
    for (int64_t kv = 0; kv < gqa.kv_heads; ++kv) {
      std::vector<double> shared(static_cast<size_t>(gqa.head_dim));
      for (int64_t head = kv * gqa.heads / gqa.kv_heads; head < (kv + 1) * gqa.heads / gqa.kv_heads; ++head)
        for (int64_t d = 0; d < gqa.head_dim; ++d)
          shared[static_cast<size_t>(d)] += o[static_cast<size_t>(head * gqa.head_dim + d)];
      EXPECT_TRUE(falls(shared)) << layer << " kv head " << kv;
    }
  }
}

TEST(Reorder, BesideALinearThatStaysInFloatsIsLeftOutAndSaidSo) {
  const RandomModel model(testing::spec_cases()[0].spec);
  OneBlock one(model, 0);
  one.work().formats.erase(Slot::gate);  // whose rows are written as they are
  const Tensor down = one.work().linear(Slot::down)->weight.clone(), o = one.work().linear(Slot::o)->weight.clone();
  ::testing::internal::CaptureStderr();
  make_reordered(std::make_shared<NoRounding>())->quantize(one.work());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              ::testing::HasSubstr("layers.0.mlp.down_proj: its inputs keep their order, for not all linears on either "
                                   "side of them are quantized"));
  EXPECT_TRUE(torch::equal(down, one.work().linear(Slot::down)->weight));
  EXPECT_FALSE(torch::equal(o, one.work().linear(Slot::o)->weight));
}

class ReorderJob : public ::testing::Test {
 protected:
  QuantizeJob job(const std::string& output, int bits) const {
    GptqMethod method;
    method.gptq.reorder = true;
    return testing::story_job(dir_ / output, 1024, method, {quant::Grid::intn, bits, true, 0});
  }
  static void run(const QuantizeJob& job) {
    ThreadPool pool(2);
    quantize(job, false, pool);
  }

  testing::TempDir dir_;
};

TEST_F(ReorderJob, GivesAnOrdinaryFileOfTheSameModel) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  run(job("out", 8));
  const auto source = quant::open_checkpoint(folder), saved = quant::open_checkpoint(dir_ / "out");
  EXPECT_LT(testing::relative_difference(testing::logits_of(*saved), testing::logits_of(*source)), 0.02);
  std::vector<float> there(static_cast<size_t>(source->tensor({Slot::up, 0}).desc.elements())), now = there;
  source->read_rows(source->tensor({Slot::up, 0}), 0, source->tensor({Slot::up, 0}).desc.rows(), there.data());
  saved->read_rows(saved->tensor({Slot::up, 0}), 0, source->tensor({Slot::up, 0}).desc.rows(), now.data());
  EXPECT_GT(testing::relative_difference(now, there), 0.5) << "its rows have another order";
}

TEST_F(ReorderJob, WritesNoImportanceMatrixOfAnotherOrder) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  QuantizeJob asks = job("out", 4);
  asks.calibration.imatrix = dir_ / "imatrix.gguf";
  EXPECT_THAT(testing::error_of([&] { run(asks); }), ::testing::HasSubstr("method.reorder"));
}

}  // namespace
}  // namespace crumb::ptq
