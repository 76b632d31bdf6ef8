#include "kernels/torch/seq.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/testing/testing.h"

namespace crumb::kernels {
namespace {

using torch::Tensor;

struct Problem {
  Tensor weight, log_scale, grad;
  int64_t group_size;
};

Problem make_problem(int64_t rows, int64_t cols, int64_t group_size) {
  torch::manual_seed(5);
  const int64_t groups = group_size == 0 ? 1 : cols / group_size;
  return {torch::randn({rows, cols}), torch::randn({rows, groups}) * 0.3, torch::randn({rows, cols}), group_size};
}

struct Gradients {
  Tensor y, weight, log_scale;
};

Gradients gradients(const Problem& p, OutsideGradient outside) {
  const Tensor w = p.weight.clone().requires_grad_(), t = p.log_scale.clone().requires_grad_();
  const Tensor y = seq_fake_quantize(w, t, p.group_size, outside);
  y.backward(p.grad);
  return {y.detach(), w.grad(), t.grad()};
}

/// The straight-through estimator spelt out for automatic differentiation in double: v = w / s, clamped to the range
/// where the gradient stops; q = v + (level - v).detach(); y = q s; s passes its rounding by s + (rounded -
/// s).detach(), relative as the parameter is ln s.
Gradients surrogate(const Problem& p, OutsideGradient outside) {
  const Tensor w = p.weight.to(torch::kFloat64).requires_grad_(), t = p.log_scale.to(torch::kFloat64).requires_grad_();
  const int64_t rows = w.size(0), group_cols = p.group_size == 0 ? w.size(1) : p.group_size;
  const Tensor rounded = round_scale(p.log_scale.exp()).to(torch::kFloat64);
  const Tensor s = (rounded * (t - t.detach()).exp()).unsqueeze(2);  // value: rounded; gradient by t: rounded
  const Tensor v = w.reshape({rows, -1, group_cols}) / s;
  const Tensor level = (v > -1).to(torch::kFloat64) + (v >= 0).to(torch::kFloat64) + (v > 1).to(torch::kFloat64) - 1.5;
  const Tensor clamped = v.clamp(-1.98, 1.98);
  // ste differs only in what w receives
  const Tensor through = outside == OutsideGradient::ste
                             ? clamped + (w.reshape(v.sizes()) / s.detach() - clamped.detach()) * (v.abs() > 1.98)
                             : clamped;
  const Tensor y = ((through + (level - through).detach()) * s).reshape({rows, -1});
  y.backward(p.grad.to(torch::kFloat64));
  return {y.detach(), w.grad(), t.grad()};
}

struct Case {
  int64_t rows, cols, group_size;
  OutsideGradient outside;
};
class SeqFakeQuantize : public ::testing::TestWithParam<Case> {};

TEST_P(SeqFakeQuantize, GradientsEqualTheSurrogateInDouble) {
  const auto [rows, cols, group_size, outside] = GetParam();
  const Problem p = make_problem(rows, cols, group_size);
  const Gradients actual = gradients(p, outside), expected = surrogate(p, outside);
  EXPECT_TRUE(torch::allclose(actual.y.to(torch::kFloat64), expected.y, 1e-12, 0));
  // the surrogate divides and multiplies by s in double: a few units in the last place
  EXPECT_TRUE(torch::allclose(actual.weight.to(torch::kFloat64), expected.weight, 1e-12, 1e-12));
  EXPECT_TRUE(torch::allclose(actual.log_scale.to(torch::kFloat64), expected.log_scale, 1e-5, 1e-4));
}

INSTANTIATE_TEST_SUITE_P(Cases, SeqFakeQuantize,
                         ::testing::Values(Case{4, 96, 0, OutsideGradient::zero},
                                           Case{4, 96, 32, OutsideGradient::zero},
                                           Case{3, 50, 10, OutsideGradient::ste},
                                           Case{5, 33, 0, OutsideGradient::ste}));

TEST(SeqOps, LevelsAreExactInBfloat16AndItsGradientsAreTaken) {
  const Problem p = make_problem(7, 96, 24);
  Problem rounded = p;
  rounded.grad = p.grad.to(torch::kBFloat16).to(torch::kFloat32);
  const Gradients expected = gradients(rounded, OutsideGradient::zero);
  const Tensor w = p.weight.clone().requires_grad_(), t = p.log_scale.clone().requires_grad_();
  const Tensor y = seq_fake_quantize(w, t, p.group_size, OutsideGradient::zero, at::kBFloat16);
  y.backward(p.grad.to(torch::kBFloat16));
  EXPECT_EQ(y.scalar_type(), torch::kBFloat16);
  EXPECT_TRUE(torch::equal(y.detach().to(torch::kFloat32), expected.y));
  EXPECT_TRUE(torch::equal(w.grad(), expected.weight));
  EXPECT_TRUE(torch::equal(t.grad(), expected.log_scale));
}

TEST(SeqOps, AreRegisteredForEveryProgramThatLinksThem) {
  for (const char* name :
       {"crumb::seq_fake_quantize", "crumb::seq_forward", "crumb::seq_backward", "crumb::seq_codes"}) {
    EXPECT_TRUE(c10::Dispatcher::singleton().findSchema({name, ""}).has_value()) << name;
  }
}

/// What devices without a kernel of their own run, called with CPU tensors under the key of a backend that has none.
template <class Signature, class... Args>
auto call_composite(const char* name, Args... args) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>().redispatch(
      c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), args...);
}

TEST(SeqOps, KeepShapesOnTheMetaDevice) {
  const auto meta = torch::TensorOptions().device(torch::kMeta);
  const Tensor y = seq_forward(torch::empty({4, 32}, meta), torch::empty({4, 2}, meta), 16);
  EXPECT_EQ(y.sizes(), (std::vector<int64_t>{4, 32}));
  EXPECT_TRUE(y.is_meta());
}

TEST(SeqOps, CompositeEqualsTheKernels) {
  for (const int64_t group_size : {0, 24}) {
    const Problem p = make_problem(6, 72, group_size);
    const Tensor scale = p.log_scale.exp();
    using Forward = Tensor(const Tensor&, const Tensor&, int64_t, std::optional<at::ScalarType>);
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const Tensor y = call_composite<Forward>("crumb::seq_forward", p.weight, scale, group_size, type);
      EXPECT_TRUE(torch::equal(y, seq_forward(p.weight, scale, group_size, type)));
    }
    const Tensor codes =
        call_composite<Tensor(const Tensor&, const Tensor&, int64_t)>("crumb::seq_codes", p.weight, scale, group_size);
    EXPECT_TRUE(torch::equal(codes, seq_codes(p.weight, scale, group_size)));
    for (const auto outside : {OutsideGradient::zero, OutsideGradient::ste}) {
      using Backward =
          std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, int64_t, c10::string_view);
      const auto [w, s] = call_composite<Backward>("crumb::seq_backward", p.weight, scale, p.grad, group_size,
                                                   c10::string_view(outside_gradient_name(outside)));
      const auto [kernel_w, kernel_s] = seq_backward(p.weight, scale, p.grad, group_size, outside);
      EXPECT_TRUE(torch::equal(w, kernel_w));
      EXPECT_TRUE(torch::allclose(s, kernel_s, 1e-5, 1e-5));  // sums in another order
    }
  }
}

TEST(SeqOps, RoundScaleOfATensorIsRoundScaleOfItsElements) {
  const Tensor s = torch::cat({torch::exp(torch::linspace(-14, 12, 5000)),
                               torch::tensor({0.0f, -1.0f, 1e-40f, 16384.0f, 1e30f, NAN, INFINITY, -INFINITY})});
  const Tensor rounded = round_scale(s);
  for (int64_t i = 0; i < s.numel(); ++i)
    EXPECT_EQ(rounded[i].item<float>(), round_scale(s[i].item<float>())) << s[i].item<float>();
}

TEST(SeqOps, TransposedAndSlicedInputsGiveTheSameAsCopies) {
  const Problem p = make_problem(32, 48, 0);
  const Tensor w = p.weight.t(), scale = torch::rand({48, 1}) + 0.5;
  EXPECT_TRUE(torch::equal(seq_forward(w, scale, 0), seq_forward(w.contiguous(), scale, 0)));
  EXPECT_TRUE(torch::equal(seq_codes(p.weight.slice(1, 8, 24), p.log_scale.exp(), 0),
                           seq_codes(p.weight.slice(1, 8, 24).contiguous(), p.log_scale.exp(), 0)));
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const c10::Error& e) {
    return e.what_without_backtrace();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(SeqOps, InputsThatDoNotFitAreNamed) {
  EXPECT_THROW(seq_forward(torch::ones({2, 8}), torch::ones({2, 1}), 0, at::kHalf), c10::Error);
  const Tensor w = torch::zeros({4, 30}), s = torch::ones({4, 1});
  EXPECT_THAT(message_of([&] { seq_forward(w[0], s, 0); }),
              ::testing::HasSubstr("weight must be [rows, cols], got [30]"));
  EXPECT_THAT(message_of([&] { seq_forward(w, s, 8); }),
              ::testing::HasSubstr("group_size 8 does not divide 30 columns"));
  EXPECT_THAT(message_of([&] { seq_forward(w, s, 10); }), ::testing::HasSubstr("scale must be [4, 3], got [4, 1]"));
  EXPECT_THAT(message_of([&] { seq_forward(w.to(torch::kBFloat16), s, 0); }),
              ::testing::HasSubstr("must be float32, got BFloat16"));
  EXPECT_EQ(message_of([] { outside_gradient_from_name("trust"); }),
            "outside_gradient: unknown \"trust\"; known: zero, ste");
}

// The shared library in Python, beside automatic differentiation of the surrogate there.
TEST(SeqOps, WorkFromPythonThroughTheSharedLibrary) {
  CRUMB_NEED_PEERS(python);
  const auto library = testing::binary_dir() / "lib" / "libcrumb_ops.so";
  ASSERT_TRUE(testing::fs::exists(library)) << library;
  const auto result =
      testing::run_command(python.string() + " " + (testing::source_dir() / "tests/qat/ops_from_python.py").string() +
                           " " + library.string());
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, ::testing::HasSubstr("ok"));
}

}  // namespace
}  // namespace crumb::kernels
