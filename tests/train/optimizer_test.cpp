#include "train/optimizer.h"

#include <gmock/gmock.h>

#include "tests/testing/testing.h"
#include "train/muon.h"

namespace crumb::train {
namespace {

TrainedParameter parameter(const std::string& name, const torch::Tensor& value,
                           ParameterKind kind = ParameterKind::weight) {
  return {name, value.clone().set_requires_grad(true), kind, {}};
}

double largest_difference(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(AdamW, EqualsTorchsForTwentySteps) {
  torch::manual_seed(0);
  const torch::Tensor start = torch::randn({37, 53}), small = torch::randn({53});
  const OptimizerOptions options{.betas = {0.9, 0.95}, .weight_decay = 0.1};
  Optimizer ours({parameter("w", start), parameter("b", small, ParameterKind::small)}, options);
  const torch::Tensor w = start.clone().set_requires_grad(true), b = small.clone().set_requires_grad(true);
  torch::optim::AdamW theirs({torch::optim::OptimizerParamGroup(
                                  {w}, std::make_unique<torch::optim::AdamWOptions>(
                                           torch::optim::AdamWOptions(1e-2).betas({0.9, 0.95}).weight_decay(0.1))),
                              torch::optim::OptimizerParamGroup(
                                  {b}, std::make_unique<torch::optim::AdamWOptions>(
                                           torch::optim::AdamWOptions(1e-2).betas({0.9, 0.95}).weight_decay(0.0)))});
  for (int step = 0; step < 20; ++step) {
    w.mutable_grad() = torch::randn_like(w);
    b.mutable_grad() = torch::randn_like(b);
    torch::Tensor w_ours = ours.parameters()[0].value, b_ours = ours.parameters()[1].value;
    w_ours.mutable_grad() = w.grad().clone();
    b_ours.mutable_grad() = b.grad().clone();
    theirs.step();
    ours.step({.lr = 1e-2, .scale_lr = 0}, 1.0);
  }
  // Twenty steps of 0.01 in float32: a few ulp of numbers near 1 a step.
  EXPECT_LT(largest_difference(ours.parameters()[0].value, w), 3e-6);
  EXPECT_LT(largest_difference(ours.parameters()[1].value, b), 3e-6);
  EXPECT_GT(largest_difference(start, w), 0.05);
}

TEST(AdamW, RowFactorsMultiplyTheStepOfTheirRow) {
  const torch::Tensor start = torch::zeros({3, 40});
  TrainedParameter p = parameter("w", start);
  p.row_factor = torch::tensor({0.5F, 1.0F, 2.0F});
  Optimizer optimizer({p}, {});
  p.value.mutable_grad() = torch::ones({3, 40});
  optimizer.step({.lr = 0.1, .scale_lr = 0}, 1.0);
  // The first step of Adam is lr times the sign of the gradient.
  EXPECT_LT(largest_difference(p.value.detach(), torch::tensor({-0.05F, -0.1F, -0.2F}).view({3, 1}).expand({3, 40})),
            1e-6);
}

TEST(AdamW, GainsMayTakeStepsInProportionToTheirSize) {
  const torch::Tensor start = torch::tensor({1.0F, 0.0003F, -2.0F, 0.0F});
  const auto stepped = [&](WordOr<double, "none"> floor, ParameterKind kind) {
    TrainedParameter p = parameter("norm", start, kind);
    Optimizer optimizer({p}, OptimizerOptions{.gain_floor = floor});
    p.value.mutable_grad() = torch::ones({4});
    optimizer.step({.lr = 1e-3, .scale_lr = 0}, 1.0);
    return p.value.detach() - start;
  };
  // The first step of Adam is lr times the sign of the gradient.
  const torch::Tensor alike = torch::full({4}, -1e-3F), relative = torch::tensor({1.0F, 0.001F, 2.0F, 0.001F}) * -1e-3F;
  EXPECT_LT(largest_difference(stepped(1e-3, ParameterKind::gain), relative), 2e-7);
  EXPECT_LT(largest_difference(stepped({}, ParameterKind::gain), alike), 2e-7);
  EXPECT_LT(largest_difference(stepped(1e-3, ParameterKind::small), alike), 2e-7) << "biases are no gains";
}

TEST(AdamW, GainsOfAnySizeMoveAlikeInProportion) {
  torch::manual_seed(0);
  const torch::Tensor start = 0.5 + torch::rand({64}), smaller = start * 0x1p-12;
  TrainedParameter a = parameter("a", start, ParameterKind::gain), b = parameter("b", smaller, ParameterKind::gain);
  Optimizer optimizer({a, b}, OptimizerOptions{.gain_floor = 1e-6});
  for (int step = 0; step < 20; ++step) {
    a.value.mutable_grad() = torch::randn({64});
    b.value.mutable_grad() = a.value.grad().clone();
    optimizer.step({.lr = 1e-2, .scale_lr = 0}, 1.0);
  }
  EXPECT_TRUE(torch::equal(a.value.detach() * 0x1p-12, b.value.detach()));
  EXPECT_GT(largest_difference(a.value.detach(), start), 0.02);
}

TEST(AdamW, ScalesHaveTheirOwnRateAndAreNotClipped) {
  TrainedParameter w = parameter("w", torch::zeros({4})), s = parameter("s", torch::zeros({4}), ParameterKind::scale);
  Optimizer optimizer({w, s}, {});
  w.value.mutable_grad() = torch::full({4}, 3.0F);
  s.value.mutable_grad() = torch::full({4}, 100.0F);
  EXPECT_DOUBLE_EQ(optimizer.gradient_norm(), 6.0);
  optimizer.step({.lr = 0.0, .scale_lr = 0.01}, 1e-6);
  EXPECT_LT(largest_difference(s.value.detach(), torch::full({4}, -0.01F)), 1e-7);
  EXPECT_LT(largest_difference(optimizer.state().at("s.m"), torch::full({4}, 10.0F)), 1e-5);
  EXPECT_EQ(largest_difference(w.value.detach(), torch::zeros({4})), 0);
}

TEST(AdamW, AveragesFollowTheWeightsAndStandInForThem) {
  torch::manual_seed(2);
  TrainedParameter w = parameter("w", torch::randn({50}));
  const OptimizerOptions options{.ema = 0.5};
  Optimizer optimizer({w}, options);
  torch::Tensor expected = w.value.detach().to(torch::kFloat64);
  for (int t = 1; t <= 12; ++t) {
    w.value.mutable_grad() = torch::randn({50});
    optimizer.step({.lr = 1e-2, .scale_lr = 0}, 1.0);
    const double decay = std::min(0.5, (1.0 + t) / (10.0 + t));
    expected = decay * expected + (1 - decay) * w.value.detach().to(torch::kFloat64);
  }
  const torch::Tensor last = w.value.detach().clone();
  optimizer.swap_averages();
  EXPECT_LT(largest_difference(w.value.detach(), expected), 1e-6);
  EXPECT_GT(largest_difference(last, expected), 1e-3);
  optimizer.swap_averages();
  EXPECT_TRUE(torch::equal(w.value.detach(), last));
  Optimizer other({parameter("w", torch::zeros({50}))}, options);
  other.load_state(optimizer.state(), 12);
  EXPECT_TRUE(torch::equal(other.state().at("w.ema"), optimizer.state().at("w.ema")));
  EXPECT_FALSE(Optimizer({w}, {}).has_averages());
}

TEST(AdamW, NormIsThatOfAllGradientsTogetherForAnySize) {
  torch::manual_seed(1);
  TrainedParameter a = parameter("a", torch::zeros({100003})), b = parameter("b", torch::zeros({7}));
  Optimizer optimizer({a, b}, {});
  a.value.mutable_grad() = torch::randn({100003});
  b.value.mutable_grad() = torch::randn({7});
  const double expected = torch::cat({a.value.grad(), b.value.grad()}).to(torch::kFloat64).norm().item<double>();
  EXPECT_NEAR(optimizer.gradient_norm(), expected, 1e-9 * expected);
}

void expect_goes_on(const OptimizerOptions& options) {
  torch::manual_seed(2);
  const torch::Tensor start = torch::randn({8, 8});
  std::vector<torch::Tensor> gradients;
  for (int i = 0; i < 6; ++i) gradients.push_back(torch::randn({8, 8}));
  const auto run = [&](Optimizer& optimizer, int first, int last) {
    for (int i = first; i < last; ++i) {
      torch::Tensor value = optimizer.parameters()[0].value;
      value.mutable_grad() = gradients[static_cast<size_t>(i)].clone();
      optimizer.step({.lr = 1e-2, .scale_lr = 0}, 1.0);
    }
  };
  Optimizer whole({parameter("w", start)}, options), first({parameter("w", start)}, options);
  run(whole, 0, 6);
  run(first, 0, 3);
  Optimizer second({parameter("w", first.parameters()[0].value.detach())}, options);
  second.load_state(first.state(), first.num_steps());
  run(second, 3, 6);
  EXPECT_TRUE(torch::equal(second.parameters()[0].value, whole.parameters()[0].value));
}

TEST(AdamW, GoesOnFromItsStateBitForBit) { expect_goes_on({}); }

// --- Muon

TEST(Muon, IsTheNewtonSchulzIterationInDouble) {
  torch::manual_seed(3);
  for (const auto& [rows, cols] : std::vector<std::pair<int64_t, int64_t>>{{24, 24}, {12, 40}, {40, 12}, {1, 9}}) {
    const torch::Tensor m = torch::randn({rows, cols}) * 1e-3;
    torch::Tensor x = m.to(torch::kFloat64) / m.to(torch::kFloat64).norm();
    for (int step = 0; step < 5; ++step) {
      const torch::Tensor cube = x.mm(x.t()).mm(x);
      x = 3.4445 * x - 4.7750 * cube + 2.0315 * x.mm(x.t()).mm(cube);
    }
    const torch::Tensor plain = orthogonalized(m, torch::kFloat32);
    EXPECT_EQ(plain.scalar_type(), torch::kFloat32);
    EXPECT_LT(largest_difference(plain.to(torch::kFloat64), x), 2e-5) << rows << " x " << cols;
    EXPECT_LT(largest_difference(orthogonalized(m, torch::kBFloat16).to(torch::kFloat64), x), 0.05);
  }
  EXPECT_TRUE(torch::equal(orthogonalized(torch::zeros({4, 6}), torch::kFloat32), torch::zeros({4, 6})));
}

TEST(Muon, GivesEveryDirectionNearlyTheSameSize) {
  torch::manual_seed(4);
  const auto directions = [](int64_t n) {
    return std::get<0>(torch::linalg_qr(torch::randn({n, 16}, torch::kFloat64)));
  };
  const torch::Tensor u = directions(40), v = directions(24), sizes = torch::logspace(0, -2, 16, 10, torch::kFloat64);
  const torch::Tensor m = u.mul(sizes).mm(v.t());
  const torch::Tensor in_directions =
      u.t().mm(orthogonalized(m.to(torch::kFloat32), torch::kFloat32).to(torch::kFloat64)).mm(v);
  const torch::Tensor diagonal = in_directions.diagonal();
  EXPECT_GT(diagonal.min().item<double>(), 0.6);  // of sizes that a hundred lay between
  EXPECT_LT(diagonal.max().item<double>(), 1.2);
  EXPECT_LT(largest_difference(in_directions, torch::diag(diagonal)), 1e-4);
}

OptimizerOptions muon_options() {
  OptimizerOptions options{.betas = {0.8, 0.9}, .weight_decay = 0.1};
  options.name = "muon";
  return options;
}

TEST(Muon, MovesMatricesOfLinearsByItsMomentumAndAdamWTheRest) {
  torch::manual_seed(5);
  const torch::Tensor start = torch::randn({10, 30});
  TrainedParameter w = parameter("w", start);
  w.row_factor = torch::rand({10}) + 0.5;
  const TrainedParameter table = parameter("t", start, ParameterKind::table),
                         small = parameter("b", torch::randn({30}), ParameterKind::small);
  const TrainedParameter other_table = parameter("t", start, ParameterKind::table),
                         other_small = parameter("b", small.value.detach(), ParameterKind::small);
  Optimizer muon({w, table, small}, muon_options());
  OptimizerOptions plain = muon_options();
  plain.name = "adamw";
  Optimizer adam({other_table, other_small}, plain);
  torch::Tensor expected = start.to(torch::kFloat64), m = torch::zeros({10, 30}, torch::kFloat64);
  for (int step = 0; step < 3; ++step) {
    const torch::Tensor g = torch::randn({10, 30}), g_small = torch::randn({30});
    for (const TrainedParameter& p : {w, table, other_table}) p.value.mutable_grad() = g.clone();
    for (const TrainedParameter& p : {small, other_small}) p.value.mutable_grad() = g_small.clone();
    muon.step({.lr = 0.01, .scale_lr = 0}, 0.5);
    adam.step({.lr = 0.01, .scale_lr = 0}, 0.5);
    const torch::Tensor gradient = 0.5 * g.to(torch::kFloat64);
    m = 0.8 * m + 0.2 * gradient;
    const torch::Tensor moved =
        orthogonalized((0.8 * m + 0.2 * gradient).to(torch::kFloat32), torch::kFloat32).to(torch::kFloat64);
    expected = (1 - 0.01 * 0.1) * expected -
               0.01 * 0.2 * std::sqrt(30.0) * w.row_factor.to(torch::kFloat64).unsqueeze(1) * moved;
  }
  EXPECT_LT(largest_difference(w.value.detach().to(torch::kFloat64), expected), 3e-6);
  EXPECT_TRUE(torch::equal(table.value, other_table.value));
  EXPECT_TRUE(torch::equal(small.value, other_small.value));
  std::vector<std::string> names;
  for (const auto& [name, value] : muon.state()) names.push_back(name);
  EXPECT_THAT(names, ::testing::ElementsAre("b.m", "b.v", "t.m", "t.v", "w.m"));
}

TEST(Muon, GoesOnFromItsStateBitForBit) { expect_goes_on(muon_options()); }

}  // namespace
}  // namespace crumb::train
