// The operators of a decoder block (kernels/torch) beside automatic differentiation of what they stand for.
#include "kernels/torch/adamw.h"
#include "kernels/torch/rms_norm.h"
#include "kernels/torch/rope.h"
#include "kernels/torch/swiglu.h"
#include "model/block.h"
#include "tests/model/models.h"
#include "tests/testing/devices.h"

namespace crumb::model {
namespace {

using kernels::rms_norm;
using kernels::rope;
using kernels::swiglu;
using testing::relative_distance;
using Op = std::function<torch::Tensor(const std::vector<torch::Tensor>&)>;

namespace plain {

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps) {
  return x * (x.square().mean(-1, true) + eps).rsqrt() * weight;
}

torch::Tensor rope(const torch::Tensor& x, const RotaryTable& table) {
  const int64_t half = table.cos.size(1);
  const torch::Tensor c = table.cos.unsqueeze(1), s = table.sin.unsqueeze(1);
  const torch::Tensor a = x.slice(-1, 0, half), b = x.slice(-1, half, 2 * half);
  return torch::cat({a * c - b * s, b * c + a * s, x.slice(-1, 2 * half)}, -1);
}

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) { return gate * torch::sigmoid(gate) * up; }

}  // namespace plain

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

/// `fused` on the inputs as they are against `plain` in double on the same numbers.
void expect_equal(const Op& fused, const Op& plain, const std::vector<torch::Tensor>& inputs, double tolerance) {
  std::vector<torch::Tensor> doubles;
  for (const auto& x : inputs) doubles.push_back(x.to(torch::kFloat64));
  const auto actual = value_and_gradients(fused, inputs), expected = value_and_gradients(plain, doubles);
  for (size_t i = 0; i < actual.size(); ++i)
    EXPECT_LT(relative_distance(actual[i], expected[i]), tolerance) << (i == 0 ? "value" : "gradient ") << i;
}

constexpr double kDoubleTolerance = 1e-14, kFloatTolerance = 1e-6,
                 kBf16Tolerance = 6e-3;  // a few units in the last place, as a norm over all values

class Ops : public ::testing::TestWithParam<int64_t> {
};  // the size of a row: vectors of 8, ragged tails, less than one vector
INSTANTIATE_TEST_SUITE_P(RowSizes, Ops, ::testing::Values(1, 7, 8, 24, 100, 512));

// float32 and bfloat16 run the kernels, float64 what other devices run.

TEST_P(Ops, RmsNormMatchesDouble) {
  torch::manual_seed(1);
  const torch::Tensor x = 3 * torch::randn({5, 30, GetParam()}), weight = torch::randn(GetParam());
  const Op plain = [](const auto& in) { return plain::rms_norm(in[0], in[1], 1e-3); };
  const auto to = [](torch::ScalarType type) {
    return Op([type](const auto& in) { return rms_norm(in[0], in[1], 1e-3, type); });
  };
  expect_equal(to(torch::kFloat64), plain, {x.to(torch::kFloat64), weight.to(torch::kFloat64)}, kDoubleTolerance);
  expect_equal(to(torch::kFloat32), plain, {x, weight}, kFloatTolerance);
  expect_equal(to(torch::kBFloat16), plain, {x, weight}, kBf16Tolerance);
  expect_equal(to(torch::kBFloat16), plain, {x.to(torch::kBFloat16), weight}, kBf16Tolerance);
  expect_equal(to(torch::kFloat32), plain, {x.to(torch::kBFloat16), weight}, kBf16Tolerance);  // has no kernel
}

TEST_P(Ops, SwigluMatchesDouble) {
  torch::manual_seed(2);
  const torch::Tensor gate = 4 * torch::randn({37, GetParam()}), up = torch::randn({37, GetParam()});
  const Op plain = [](const auto& in) { return plain::swiglu(in[0], in[1]); };
  const Op fused = [](const auto& in) { return swiglu(in[0], in[1]); };
  for (const auto& [type, tolerance] :
       {std::pair(torch::kFloat64, kDoubleTolerance), std::pair(torch::kFloat32, kFloatTolerance),
        std::pair(torch::kBFloat16, kBf16Tolerance)})
    expect_equal(fused, plain, {gate.to(type), up.to(type)}, tolerance);
}

TEST_P(Ops, RopeMatchesDouble) {
  torch::manual_seed(3);
  const int64_t half = GetParam(), rest = 3;  // three components that are not turned
  const RotaryTable table = make_rotary_table(
      {.dim = 2 * half, .base = 100.0, .divisors = std::vector<double>(static_cast<size_t>(half), 1.0)}, 13);
  const torch::Tensor x = torch::randn({2, 13, 3, 2 * half + rest});
  const Op plain = [&](const auto& in) { return plain::rope(in[0], table); };
  const Op fused = [&](const auto& in) { return rope(in[0], table.cos, table.sin); };
  for (const auto& [type, tolerance] :
       {std::pair(torch::kFloat64, kDoubleTolerance), std::pair(torch::kFloat32, kFloatTolerance),
        std::pair(torch::kBFloat16, kBf16Tolerance)})
    expect_equal(fused, plain, {x.to(type)}, tolerance);
  EXPECT_LT(relative_distance(rope(fused({x}), table.cos, table.sin, true), x), kFloatTolerance);
}

class OpsOnDevice : public testing::OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, OpsOnDevice, testing::all_devices());

/// Without autograd, which the stand-in lacks: the operators that autograd calls.
TEST_P(OpsOnDevice, EqualTheCpus) {
  CRUMB_NEED_DEVICE(device);
  torch::manual_seed(6);
  const torch::NoGradGuard no_grad;
  const RotaryTable table = make_rotary_table({.dim = 8, .base = 100.0, .divisors = std::vector<double>(4, 1.0)}, 5);
  for (const auto type : {torch::kFloat32, torch::kBFloat16}) {
    const torch::Tensor x = torch::randn({2, 5, 3, 9}).to(type), grad = torch::randn({2, 5, 3, 9}).to(type),
                        weight = torch::randn(9);
    const auto values = [&](torch::Device at) {
      const auto there = [&](const torch::Tensor& here) { return here.to(at); };
      std::vector<torch::Tensor> out{rms_norm(there(x), there(weight), 1e-5, type), swiglu(there(x), there(grad)),
                                     rope(there(x), there(table.cos), there(table.sin)),
                                     rope(there(x), there(table.cos), there(table.sin), true)};
      for (const bool weight_gradient : {true, false}) {
        const auto [by_x, by_weight] =
            kernels::rms_norm_backward(there(grad), there(x), there(weight), 1e-5, weight_gradient);
        EXPECT_EQ(by_weight.numel(), weight_gradient ? 9 : 0);
        out.push_back(by_x);
        if (weight_gradient) out.push_back(by_weight);
      }
      const auto [by_gate, by_up] = kernels::swiglu_backward(there(grad), there(x), there(grad));
      out.push_back(by_gate);
      out.push_back(by_up);
      for (auto& value : out) {
        EXPECT_EQ(value.device().type(), at.type());
        value = value.cpu();
      }
      return out;
    };
    const auto expected = values(torch::kCPU), actual = values(device);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(actual[i].scalar_type(), expected[i].scalar_type()) << "value " << i;
      EXPECT_LT(relative_distance(actual[i], expected[i]), type == torch::kFloat32 ? 1e-6 : kBf16Tolerance)
          << "value " << i;
    }
  }
}

/// Weight and moments after a step.
std::vector<torch::Tensor> after_a_step(torch::Device device, bool has_factors) {
  torch::manual_seed(8);
  const auto random = [&] { return torch::randn({37, 53}).to(device); };
  std::vector<torch::Tensor> out{random(), random(), random().abs()};
  const torch::Tensor gradient = torch::randn({53, 37}).to(device).t(), factors = (torch::rand({37}) + 0.5).to(device);
  kernels::adamw_(out[0], gradient, out[1], out[2], has_factors ? std::optional(factors) : std::nullopt,
                  {.gradient_factor = 0.7F, .decay = 1e-3F, .step_size = 1e-2F, .root_correction = 1.5F});
  for (auto& x : out) x = x.cpu();
  return out;
}

TEST_P(OpsOnDevice, AStepOfTheOptimizerEqualsTheCpus) {
  CRUMB_NEED_DEVICE(device);
  for (const bool has_factors : {true, false}) {
    const auto expected = after_a_step(torch::kCPU, has_factors), actual = after_a_step(device, has_factors);
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_LT(relative_distance(actual[i], expected[i]), 1e-6) << "tensor " << i;
  }
}

TEST(Ops, NonContiguousInputsAreTakenAsTheyAre) {
  torch::manual_seed(4);
  const torch::Tensor x = torch::randn({16, 12}).t(), y = torch::randn({16, 12}).t(), weight = torch::randn(16);
  const Op norm = [](const auto& in) { return rms_norm(in[0].t(), in[1], 1e-5, torch::kFloat32); };
  const Op gate = [](const auto& in) { return swiglu(in[0].t(), in[1].t()); };
  expect_equal(
      gate, [](const auto& in) { return plain::swiglu(in[0].t(), in[1].t()); }, {x.t(), y.t()}, kFloatTolerance);
  expect_equal(
      norm, [](const auto& in) { return plain::rms_norm(in[0].t(), in[1], 1e-5); }, {x.t(), weight}, kFloatTolerance);
}

TEST(Ops, WrongShapesSaySo) {
  const auto message = [](const std::function<void()>& call) {
    try {
      call();
    } catch (const c10::Error& error) {
      return std::string(error.what_without_backtrace());
    }
    return std::string();
  };
  const torch::Tensor x = torch::ones({2, 3, 2, 8});
  for (const auto type : {torch::kFloat32, torch::kFloat64}) {
    EXPECT_EQ(message([&] { rms_norm(x.to(type), torch::ones(7), 1e-5, type); }),
              "rms_norm: weight must be [8], the last size of x, got [7]");
    EXPECT_EQ(message([&] {
                swiglu(x.to(type), torch::ones({2, 3, 2, 7}).to(type));
              }).substr(0, 35),
              "swiglu: gate and up must be alike, ");
    EXPECT_EQ(message([&] {
                rope(x.to(type), torch::ones({4, 4}), torch::ones({4, 4}));
              }),
              "rope: cos and sin must be [3, at most 4], got [4, 4] and [4, 4]");
  }
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
