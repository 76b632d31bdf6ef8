// The decoder and its losses on other devices equal those on the CPU.
#include "model/decoder.h"
#include "model/head_loss.h"
#include "tests/model/models.h"
#include "tests/testing/devices.h"

namespace crumb::model {
namespace {

using testing::lively_source;
using testing::random_ids;
using testing::relative_distance;
using testing::small_spec;

class ModelOnDevice : public testing::OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, ModelOnDevice, testing::gpus());

class ScoresOnDevice : public testing::OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, ScoresOnDevice, testing::all_devices());

/// Final hidden states and the gradients of all parameters by a fixed projection, on the CPU.
std::vector<torch::Tensor> states_and_gradients(const arch::DecoderSpec& spec, torch::Device device,
                                                torch::ScalarType compute) {
  Decoder decoder(spec, lively_source(3));
  decoder.compute = compute;
  decoder.round_small_tensors = true;
  decoder.to(device);
  const torch::Tensor ids = random_ids(2, 17, spec.vocab_size);
  const DecoderOutput out = decoder.forward(ids.to(device), {0});
  torch::manual_seed(4);
  const torch::Tensor direction = torch::randn(out.final_hidden.sizes());
  ((out.final_hidden + out.hidden.at(0)) * direction.to(device)).sum().backward();
  std::vector<torch::Tensor> values{out.final_hidden.detach().cpu()};
  for (const auto& parameter : decoder.parameters()) values.push_back(parameter.grad().cpu());
  return values;
}

TEST_P(ModelOnDevice, StatesAndGradientsOfADecoderEqualTheCpus) {
  CRUMB_NEED_DEVICE(device);
  arch::DecoderSpec plain = small_spec(), other = small_spec();
  plain.tied_head = other.tied_head = true;  // every parameter takes part
  for (auto& layer : other.layers) {
    layer.window = 5;
    std::get<arch::GqaSpec>(layer.attention).qk_norm = arch::QkNorm::before_rope;
    std::get<arch::GqaSpec>(layer.attention).qkv_bias = true;
  }
  for (const auto& spec : {plain, other}) {
    for (const auto compute : {torch::kFloat32, torch::kBFloat16}) {
      const auto expected = states_and_gradients(spec, torch::kCPU, compute),
                 actual = states_and_gradients(spec, device, compute);
      ASSERT_EQ(actual.size(), expected.size());
      const double allowed = compute == torch::kBFloat16 ? 0.03 : 1e-4;
      for (size_t i = 0; i < expected.size(); ++i)
        EXPECT_LT(relative_distance(actual[i], expected[i]), allowed) << "tensor " << i;
    }
  }
}

HeadLossInput random_input(torch::Device device) {
  torch::manual_seed(1);
  HeadLossInput in;
  in.hidden = torch::randn({37, 16}).to(device).requires_grad_(true);
  in.head = torch::randn({53, 16}).to(device).requires_grad_(true);
  in.teacher_hidden = torch::randn({37, 12}).to(device);
  in.teacher_head = torch::randn({53, 12}).to(device);
  in.targets = torch::randint(53, {37}, torch::kInt64).to(device);
  in.mask = (torch::arange(37) % 3 > 0).to(torch::kFloat32).to(device);
  return in;
}

TEST_P(ModelOnDevice, LossesOfTheHeadEqualTheCpus) {
  CRUMB_NEED_DEVICE(device);
  for (const auto compute : {torch::kFloat32, torch::kBFloat16}) {
    HeadLossInput here = random_input(torch::kCPU), there = random_input(device);
    here.compute = there.compute = compute;
    const kernels::LogitLossSpec spec{
        {.kl = 0.7, .reverse_kl = 0.3, .jsd = 0.5, .cakld = 0.2, .cross_entropy = 0.4}, 2.0, 0.3};
    const HeadLoss expected = head_loss(here, spec, 24.0, 10), actual = head_loss(there, spec, 24.0, 10);
    const double allowed = compute == torch::kBFloat16 ? 0.01 : 1e-5;
    for (const auto& [name, value] : kernels::kLossTerms)
      EXPECT_NEAR(actual.terms.*value, expected.terms.*value, allowed * expected.terms.*value) << name;
    expected.total.backward();
    actual.total.backward();
    EXPECT_LT(relative_distance(there.hidden.grad().cpu(), here.hidden.grad()), allowed);
    EXPECT_LT(relative_distance(there.head.grad().cpu(), here.head.grad()), allowed);
  }
}

TEST_P(ScoresOnDevice, OfTheHeadEqualTheCpus) {
  CRUMB_NEED_DEVICE(device);
  for (const bool has_teacher : {true, false}) {
    HeadLossInput here = random_input(torch::kCPU), there = random_input(device);
    if (!has_teacher) here.teacher_hidden = there.teacher_hidden = torch::Tensor();
    const HeadScores expected = head_scores(here, 7), actual = head_scores(there, 7);
    EXPECT_EQ(actual.tokens, 24);
    EXPECT_NEAR(actual.kl, expected.kl, 1e-5 * expected.kl);
    EXPECT_NEAR(actual.cross_entropy, expected.cross_entropy, 1e-5 * expected.cross_entropy);
    EXPECT_EQ(actual.same_top, expected.same_top);
    EXPECT_EQ(actual.top_is_target, expected.top_is_target);
  }
}

}  // namespace
}  // namespace crumb::model
