#include "model/ops.h"

#include "model/block.h"
#include "tests/model/models.h"

namespace crumb::model {
namespace {

using testing::relative_distance;
using Op = std::function<torch::Tensor(const std::vector<torch::Tensor>&)>;

/// Value and gradients (of a random projection) of an operation.
std::vector<torch::Tensor> value_and_gradients(const Op& op, const std::vector<torch::Tensor>& inputs) {
  std::vector<torch::Tensor> leaves;
  for (const auto& x : inputs) leaves.push_back(x.detach().clone().requires_grad_(true));
  const torch::Tensor y = op(leaves);
  torch::manual_seed(11);
  y.backward(torch::randn(y.sizes()).to(y.scalar_type()));
  std::vector<torch::Tensor> out{y.detach()};
  for (const auto& x : leaves) out.push_back(x.grad());
  return out;
}

/// `fused` in float and bf16 against `plain` in double on the same numbers.
void expect_equal(const Op& fused, const Op& plain, const std::vector<torch::Tensor>& inputs, double tolerance) {
  std::vector<torch::Tensor> doubles;
  for (const auto& x : inputs) doubles.push_back(x.to(torch::kFloat64));
  const auto actual = value_and_gradients(fused, inputs), expected = value_and_gradients(plain, doubles);
  for (size_t i = 0; i < actual.size(); ++i)
    EXPECT_LT(relative_distance(actual[i], expected[i]), tolerance) << (i == 0 ? "value" : "gradient ") << i;
}

constexpr double kFloatTolerance = 1e-6,
                 kBf16Tolerance = 6e-3;  // a few units in the last place, as a norm over all values

class Ops : public ::testing::TestWithParam<int64_t> {
};  // the size of a row: vectors of 8, ragged tails, less than one vector
INSTANTIATE_TEST_SUITE_P(RowSizes, Ops, ::testing::Values(1, 7, 8, 24, 100, 512));

TEST_P(Ops, RmsNormMatchesDouble) {
  torch::manual_seed(1);
  const torch::Tensor x = 3 * torch::randn({5, 30, GetParam()}), weight = torch::randn(GetParam());
  const Op plain = [](const auto& in) { return composite::rms_norm(in[0], in[1], 1e-3, torch::kFloat64); };
  expect_equal([](const auto& in) { return rms_norm(in[0], in[1], 1e-3, torch::kFloat32); }, plain, {x, weight},
               kFloatTolerance);
  expect_equal([](const auto& in) { return rms_norm(in[0], in[1], 1e-3, torch::kBFloat16); }, plain, {x, weight},
               kBf16Tolerance);
  expect_equal([](const auto& in) { return rms_norm(in[0], in[1], 1e-3, torch::kBFloat16); }, plain,
               {x.to(torch::kBFloat16), weight}, kBf16Tolerance);
}

TEST_P(Ops, SwigluMatchesDouble) {
  torch::manual_seed(2);
  const torch::Tensor gate = 4 * torch::randn({37, GetParam()}), up = torch::randn({37, GetParam()});
  const Op plain = [](const auto& in) { return composite::swiglu(in[0], in[1]); };
  expect_equal([](const auto& in) { return swiglu(in[0], in[1]); }, plain, {gate, up}, kFloatTolerance);
  expect_equal([](const auto& in) { return swiglu(in[0], in[1]); }, plain,
               {gate.to(torch::kBFloat16), up.to(torch::kBFloat16)}, kBf16Tolerance);
}

TEST_P(Ops, RopeMatchesDouble) {
  torch::manual_seed(3);
  const int64_t half = GetParam(), rest = 3;  // three components that are not turned
  const RotaryTable table = make_rotary_table(
      {.dim = 2 * half, .base = 100.0, .divisors = std::vector<double>(static_cast<size_t>(half), 1.0)}, 13);
  const torch::Tensor x = torch::randn({2, 13, 3, 2 * half + rest});
  const Op plain = [&](const auto& in) { return composite::rope(in[0], table.cos, table.sin); };
  const Op fused = [&](const auto& in) { return rope(in[0], table.cos, table.sin); };
  expect_equal(fused, plain, {x}, kFloatTolerance);
  expect_equal(fused, plain, {x.to(torch::kBFloat16)}, kBf16Tolerance);
}

TEST(Ops, NonContiguousInputsAreTakenAsTheyAre) {
  torch::manual_seed(4);
  const torch::Tensor x = torch::randn({16, 12}).t(), y = torch::randn({16, 12}).t(), weight = torch::randn(16);
  EXPECT_LT(relative_distance(swiglu(x, y), composite::swiglu(x, y)), kFloatTolerance);
  EXPECT_LT(relative_distance(rms_norm(x, weight, 1e-5, torch::kFloat32),
                              composite::rms_norm(x, weight, 1e-5, torch::kFloat32)),
            kFloatTolerance);
}

TEST(Ops, SwigluOfHugeGatesIsFinite) {
  const torch::Tensor gate = torch::tensor({-1e4f, -100.0f, 0.0f, 100.0f, 1e4f, -88.0f, 88.0f, 1e30f}),
                      up = torch::ones(8);
  const auto out = value_and_gradients([](const auto& in) { return swiglu(in[0], in[1]); }, {gate, up});
  for (const auto& x : out) EXPECT_TRUE(x.isfinite().all().item<bool>());
  EXPECT_EQ(out[0][4].item<float>(), 1e4f);
  EXPECT_NEAR(out[0][0].item<float>(), 0.0f, 1e-30f);
}

TEST(Ops, NanPassesThrough) {
  torch::Tensor x = torch::ones({1, 16});
  x[0][3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(swiglu(x, torch::ones({1, 16}))[0][3].isnan().item<bool>());
  EXPECT_TRUE(rms_norm(x, torch::ones(16), 1e-5, torch::kFloat32).isnan().all().item<bool>());
  EXPECT_TRUE(rms_norm(x, torch::ones(16), 1e-5, torch::kBFloat16).isnan().all().item<bool>());
}

TEST(Ops, RmsNormGradientOfTheWeightIsTheSameForAnyNumberOfThreads) {
  torch::manual_seed(5);
  const torch::Tensor x = torch::randn({777, 40}), weight = torch::randn(40);
  const Op op = [](const auto& in) { return rms_norm(in[0], in[1], 1e-5, torch::kFloat32); };
  const int threads = torch::get_num_threads();
  const auto many = value_and_gradients(op, {x, weight});
  torch::set_num_threads(1);
  const auto one = value_and_gradients(op, {x, weight});
  torch::set_num_threads(threads);
  for (size_t i = 0; i < many.size(); ++i) EXPECT_TRUE(torch::equal(many[i], one[i]));
}

}  // namespace
}  // namespace crumb::model
