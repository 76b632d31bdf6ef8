#include "qat/lsq_linear.h"

#include <gtest/gtest.h>

#include "qat/fake_quantize.h"
#include "quant/scale_search.h"
#include "tests/testing/testing.h"

namespace crumb::qat {
namespace {

using quant::Grid;
using quant::QuantFormat;
using torch::Tensor;

class LsqLinear : public ::testing::TestWithParam<QuantFormat> {
 protected:
  const QuantFormat format_ = GetParam();
  std::shared_ptr<LsqLinearImpl> make() const {
    torch::manual_seed(4);
    return std::make_shared<LsqLinearImpl>(torch::randn({6, 32}) * 0.2, torch::randn({6}), format_,
                                           quant::ScaleInit::mse);
  }
  static std::vector<uint8_t> every_third() {
    std::vector<uint8_t> mask(6 * 32);
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 3 == 0 ? 0 : 1;
    return mask;
  }
  static Tensor values(const quant::QuantizedTensor& codes) {
    Tensor out = torch::empty({codes.rows, codes.cols});
    codes.dequantize(out.data_ptr<float>());
    return out;
  }
};

TEST_P(LsqLinear, BeginsAsTheRoundedWeightAndMultipliesWithWhatItWrites) {
  const auto linear = make();
  const auto expected =
      quant::round_to_nearest(linear->weight.const_data_ptr<float>(), 6, 32, format_, quant::ScaleInit::mse);
  const auto written = linear->quantized();
  EXPECT_EQ(written.codes, expected.codes);
  EXPECT_EQ(written.scales, expected.scales);
  EXPECT_EQ(written.format, format_);
  const Tensor x = torch::randn({3, 32});
  EXPECT_TRUE(torch::equal(linear->forward(x), torch::linear(x, values(written), linear->bias)));
  EXPECT_TRUE(torch::equal(linear->effective_weight(), values(written)));
  EXPECT_EQ(linear->quantized(2, 4).codes,
            (std::vector<uint8_t>(written.codes.begin() + 64, written.codes.begin() + 128)));
}

TEST_P(LsqLinear, HasTheGradientsOfLsq) {
  const auto linear = make();
  const Tensor x = torch::randn({5, 32}), slope = torch::randn({5, 6});
  linear->forward(x).backward(slope);
  const Tensor weight = linear->weight.detach().clone().requires_grad_(true),
               log_scale = linear->log_scales().clone().requires_grad_(true);
  torch::linear(x, fake_quantize(weight, log_scale, {}, format_)).backward(slope);
  EXPECT_TRUE(torch::equal(linear->weight.grad(), weight.grad()));
  EXPECT_TRUE(torch::equal(linear->log_scale.grad(), log_scale.grad()));
}

TEST_P(LsqLinear, WhatIsPrunedStaysZeroWhileTheRestIsTrained) {
  const auto linear = make();
  const std::vector<uint8_t> mask = every_third();
  linear->set_mask(mask);
  EXPECT_TRUE(linear->format().has_mask);
  const Tensor before = linear->effective_weight(), x = torch::randn({64, 32}), target = torch::randn({64, 6});
  torch::optim::AdamW optimizer(linear->parameters(), torch::optim::AdamWOptions(0.05).weight_decay(0.1));
  for (int step = 0; step < 20; ++step) {
    optimizer.zero_grad();
    torch::mse_loss(linear->forward(x), target).backward();
    optimizer.step();
  }
  const auto written = linear->quantized();
  EXPECT_EQ(written.mask, mask);
  EXPECT_EQ(written.find_broken_mask(), -1);
  const Tensor after = values(written), kept = torch::tensor(mask, torch::kFloat32).view({6, 32});
  EXPECT_TRUE(torch::equal(after, after * kept));
  EXPECT_TRUE(torch::equal(linear->weight, linear->weight * kept)) << "the masters, too";
  EXPECT_FALSE(torch::equal(after, before));
  EXPECT_EQ(linear->quantized(1, 3).mask, (std::vector<uint8_t>(mask.begin() + 32, mask.begin() + 96)));
}

// A checkpoint of a run may hold anything in the places of pruned weights.
TEST_P(LsqLinear, ValuesUnderTheMaskMeanNothing) {
  const auto linear = make();
  linear->set_mask(every_third());
  const Tensor before = linear->effective_weight();
  {
    const torch::NoGradGuard no_grad;
    const Tensor kept = torch::tensor(every_third(), torch::kFloat32).view({6, 32});
    linear->weight.add_(1 - kept);
  }
  EXPECT_TRUE(torch::equal(linear->effective_weight(), before));
  EXPECT_EQ(linear->quantized().find_broken_mask(), -1);
}

INSTANTIATE_TEST_SUITE_P(Grids, LsqLinear,
                         ::testing::Values(QuantFormat{Grid::intn, 8, true, 0}, QuantFormat{Grid::intn, 4, true, 16},
                                           QuantFormat{Grid::intn, 2, true, 8},
                                           QuantFormat{Grid::ternary, 2, true, 0}));

TEST(QatMethod, KnowsWhatLsqTrains) {
  EXPECT_NO_THROW((QatMethod{.linears = {.grid = "int", .bits = 4, .group_size = 32}}.check()));
  EXPECT_NO_THROW((QatMethod{.linears = {.grid = "ternary"}, .init = std::string("absmean")}.check()));
  const QatMethod zero_points{.linears = {.grid = "int", .bits = 4, .symmetric = false}},
      floats{.linears = {.grid = "int", .bits = 4, .symmetric = false, .zero_point = "float"}},
      override_{.linears = {.grid = "int", .bits = 4, .overrides = {{"down_proj", {.symmetric = false}}}}},
      straight{.linears = {.grid = "int", .bits = 4}, .outside_gradient = "ste"};
  EXPECT_EQ(testing::error_of([&] { zero_points.check(); }), "method.symmetric: training knows no zero points");
  EXPECT_EQ(testing::error_of([&] { floats.check(); }), "method.symmetric: training knows no zero points");
  EXPECT_EQ(testing::error_of([&] { override_.check(); }),
            "method.overrides.down_proj.symmetric: training knows no zero points");
  EXPECT_EQ(testing::error_of([&] { straight.check(); }),
            "method.outside_gradient: ste is for grid seq; what lies beyond the levels of the others has no gradient");
  EXPECT_EQ(testing::error_of([&] { check_device(straight, "cuda"); }),
            "device: cuda trains seq only, and method.grid is int; use device: cpu");
  EXPECT_NO_THROW(check_device({}, "cuda"));
}

}  // namespace
}  // namespace crumb::qat
