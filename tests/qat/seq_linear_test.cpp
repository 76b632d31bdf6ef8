#include "qat/seq_linear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "qat/linear_factory.h"
#include "quant/scale_search.h"
#include "tests/testing/testing.h"

namespace crumb::qat {
namespace {

using torch::Tensor;

Tensor values_of(const quant::QuantizedTensor& tensor) {
  Tensor out = torch::empty({tensor.rows, tensor.cols});
  tensor.dequantize(out.data_ptr<float>());
  return out;
}

TEST(SeqLinear, MultipliesWithExactlyItsCodesAndScales) {
  torch::manual_seed(1);
  for (const int64_t group_size : {0, 16}) {
    SeqLinear layer(torch::randn({24, 64}), torch::randn({24}), SeqOptions{.group_size = group_size});
    const Tensor x = torch::randn({2, 5, 64}), q = values_of(layer->quantized());
    EXPECT_TRUE(torch::equal(layer->effective_weight(), q));
    EXPECT_TRUE(torch::equal(layer->forward(x), torch::linear(x, q, layer->bias)));
    EXPECT_TRUE(torch::equal(values_of(layer->quantized(3, 11)), q.slice(0, 3, 11)));
    const auto tensor = layer->quantized();
    EXPECT_EQ(tensor.format.group_size, group_size);
    EXPECT_EQ(tensor.scales.size(), static_cast<size_t>(24 * tensor.format.groups(64)));
    for (const float s : tensor.scales) EXPECT_EQ(kernels::round_scale(s), s);
  }
}

TEST(SeqLinear, FirstCodesAndScalesAreRoundToNearest) {
  torch::manual_seed(2);
  const Tensor w = torch::randn({16, 96}) * 0.02;
  for (const auto init : {quant::ScaleInit::absmax, quant::ScaleInit::absmean, quant::ScaleInit::mse}) {
    SeqLinear layer(w.clone(), Tensor(), SeqOptions{.group_size = 32, .init = init});
    const auto expected = quant::round_to_nearest(w.data_ptr<float>(), 16, 96, {.group_size = 32}, init),
               actual = layer->quantized();
    EXPECT_EQ(actual.scales, expected.scales) << "ln and exp must not move a scale";
    EXPECT_EQ(actual.codes, expected.codes);
  }
}

TEST(SeqLinear, TakesTheParametersOfALinear) {
  torch::nn::Linear linear(8, 4);
  SeqLinear layer(linear);
  EXPECT_TRUE(torch::equal(layer->weight, linear->weight));
  EXPECT_TRUE(torch::equal(layer->bias, linear->bias));
  std::vector<std::string> names;
  for (const auto& entry : layer->named_parameters()) names.push_back(entry.key());
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("weight", "log_scale", "bias"));
  std::ostringstream text;
  text << *layer;
  EXPECT_EQ(text.str(), "crumb::qat::SeqLinear(in_features=8, out_features=4, group_size=0, bias=true)");
}

TEST(SeqLinear, InBfloat16UsesTheSameLevels) {
  torch::manual_seed(3);
  SeqLinear layer(torch::randn({8, 32}), Tensor());
  const Tensor eye = torch::eye(32).to(torch::kBFloat16);  // picks out the columns
  EXPECT_TRUE(torch::equal(layer->forward(eye).to(torch::kFloat32), layer->effective_weight().t()));
}

TEST(SeqLinear, LearnsWhatRoundingAloneCannot) {
  torch::manual_seed(4);
  const Tensor x = torch::randn({256, 32}), target = torch::linear(x, torch::randn({8, 32}));
  SeqLinear layer(torch::randn({8, 32}), Tensor());
  torch::optim::Adam optimizer(layer->parameters(), torch::optim::AdamOptions(0.02));
  const auto loss = [&] { return torch::mse_loss(layer->forward(x), target); };
  const double first = loss().item<double>();
  for (int step = 0; step < 200; ++step) {
    optimizer.zero_grad();
    loss().backward();
    optimizer.step();
  }
  EXPECT_LT(loss().item<double>(), 0.25 * first);
}

TEST(SeqLinear, GroupSizeThatDoesNotDivideIsRefused) {
  EXPECT_EQ(testing::error_of([] {
              SeqLinear(torch::zeros({2, 30}), Tensor(), SeqOptions{.group_size = 8});
            }),
            "group_size: 8 does not divide 30, the input size of the linear");
}

TEST(WithSeqLinears, SwapsLinearsOfASequentialAndSharesTheRest) {
  torch::nn::Sequential net(torch::nn::Linear(16, 16), torch::nn::Tanh(), torch::nn::Linear(16, 2));
  auto swapped = with_seq_linears(net, {}, {"2"});
  EXPECT_NE(swapped->ptr(0)->as<SeqLinearImpl>(), nullptr);
  EXPECT_EQ(swapped->ptr(1), net->ptr(1));
  EXPECT_EQ(swapped->ptr(2), net->ptr(2)) << "excluded";
  EXPECT_EQ(swapped->forward(torch::randn({3, 16})).sizes(), (std::vector<int64_t>{3, 2}));
}

TEST(WithSeqLinears, SwapsLinearsOfAModuleList) {
  torch::nn::ModuleList list(torch::nn::Linear(16, 16), torch::nn::ReLU());
  const auto swapped = with_seq_linears(list);
  EXPECT_NE(swapped->ptr(0)->as<SeqLinearImpl>(), nullptr);
  EXPECT_EQ(swapped->ptr(1), list->ptr(1));
}

TEST(LinearFactory, ExcludedNamesStayFloatAndOverridesHold) {
  const auto make =
      linear_factory({.linears = {.exclude = {"o_proj"}, .overrides = {{"down_proj", {.group_size = 4}}}}});
  const auto is_seq = [](const std::shared_ptr<model::LinearModule>& linear) {
    return std::dynamic_pointer_cast<SeqLinearImpl>(linear) != nullptr;
  };
  EXPECT_TRUE(is_seq(make("model.layers.0.self_attn.q_proj", torch::randn({4, 8}), {})));
  EXPECT_FALSE(is_seq(make("model.layers.0.self_attn.o_proj", torch::randn({4, 8}), {})));
  const auto down = make("model.layers.0.mlp.down_proj", torch::randn({4, 8}), {});
  ASSERT_TRUE(is_seq(down));
  EXPECT_EQ(std::dynamic_pointer_cast<QuantLinear>(down)->format().group_size, 4);
}

TEST(LinearFactory, WhatCannotTrainIsRefused) {
  const QatMethod fp8{.linears = {.grid = "fp8", .bits = 8}};
  EXPECT_EQ(testing::error_of([&] { linear_factory(fp8); }),
            "method.grid: training knows seq, int, ternary only, got fp8");
  const auto make = linear_factory({.linears = {.group_size = 48}});
  EXPECT_EQ(testing::error_of([&] {
              make("model.layers.1.mlp.up_proj", torch::randn({4, 64}), {});
            }),
            "method.group_size: 48 does not divide 64, the input size of model.layers.1.mlp.up_proj");
}

}  // namespace
}  // namespace crumb::qat
