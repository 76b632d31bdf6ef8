// SEQ linears on other devices: the same levels, codes and files as on the CPU.
#include <gtest/gtest.h>

#include "kernels/torch/seq.h"
#include "qat/convert.h"
#include "qat/linear_factory.h"
#include "qat/movement.h"
#include "qat/seq_linear.h"
#include "tests/testing/devices.h"

namespace crumb::qat {
namespace {

using kernels::OutsideGradient;
using torch::Tensor;

class SeqOnDevice : public testing::OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, SeqOnDevice, testing::gpus());

class SeqOperatorsOnDevice : public testing::OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, SeqOperatorsOnDevice, testing::all_devices());

TEST_P(SeqOperatorsOnDevice, EqualTheKernels) {
  CRUMB_NEED_DEVICE(device);
  torch::manual_seed(5);
  const Tensor w = torch::randn({16, 96}), grad = torch::randn({16, 96});
  for (const int64_t group_size : {0, 24}) {
    const Tensor s = torch::exp(0.3 * torch::randn({16, group_size == 0 ? 1 : 4}));
    const Tensor there = w.to(device), s_there = s.to(device);
    const Tensor levels = kernels::seq_forward(there, s_there, group_size);
    EXPECT_EQ(levels.device(), device);
    EXPECT_TRUE(torch::equal(levels.cpu(), kernels::seq_forward(w, s, group_size)));
    EXPECT_TRUE(
        torch::equal(kernels::seq_codes(there, s_there, group_size).cpu(), kernels::seq_codes(w, s, group_size)));
    EXPECT_TRUE(torch::equal(kernels::round_scale(s_there).cpu(), kernels::round_scale(s)));
    const Tensor halves = kernels::seq_forward(there, s_there, group_size, at::kBFloat16);
    EXPECT_EQ(halves.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(torch::equal(halves.to(at::kFloat), levels));
    const auto half = grad.to(at::kBFloat16);
    for (const auto& [outside, g] : {std::pair(OutsideGradient::zero, grad), std::pair(OutsideGradient::ste, grad),
                                     std::pair(OutsideGradient::zero, half)}) {
      const auto [by_w, by_s] = kernels::seq_backward(there, s_there, g.to(device), group_size, outside);
      const auto [expected_w, expected_s] = kernels::seq_backward(w, s, g, group_size, outside);
      EXPECT_TRUE(torch::equal(by_w.cpu(), expected_w));
      EXPECT_TRUE(torch::allclose(by_s.cpu(), expected_s, 1e-5, 1e-5)) << "sums in another order";
    }
  }
}

TEST_P(SeqOnDevice, ALinearAndItsGradientsEqualTheCpus) {
  CRUMB_NEED_DEVICE(device);
  torch::manual_seed(6);
  const Tensor w = torch::randn({24, 64}), bias = torch::randn({24}), x = torch::randn({2, 5, 64}),
               grad = torch::randn({2, 5, 24});
  SeqLinear here(w.clone(), bias.clone(), SeqOptions{.group_size = 16}),
      there(w.clone(), bias.clone(), SeqOptions{.group_size = 16});
  there->to(device);
  EXPECT_EQ(there->log_scale.device(), device) << "the members are the parameters that moved";
  const Tensor y = here->forward(x), y_there = there->forward(x.to(device));
  EXPECT_TRUE(torch::allclose(y_there.cpu(), y, tolerance(), tolerance()));
  y.backward(grad);
  y_there.backward(grad.to(device));
  for (const auto& [a, b] : {std::pair{here->weight, there->weight}, std::pair{here->log_scale, there->log_scale},
                             std::pair{here->bias, there->bias}})
    EXPECT_TRUE(torch::allclose(b.grad().cpu(), a.grad(), 1e-4, 1e-4));
  const auto codes = here->quantized(), codes_there = there->quantized();
  EXPECT_EQ(codes_there.codes, codes.codes);
  EXPECT_EQ(codes_there.scales, codes.scales);
  EXPECT_TRUE(torch::equal(there->effective_weight().cpu(), here->effective_weight()));
}

/// A decoder with SEQ linears on `device`, its weights moved from the checkpoint's by the same amounts everywhere.
struct Trained {
  std::unique_ptr<quant::Checkpoint> base;
  QatMethod method;
  std::unique_ptr<model::Decoder> decoder;
  MovementReport movement;

  Trained(const testing::fs::path& folder, torch::Device device) : base(quant::open_checkpoint(folder)) {
    decoder = std::make_unique<model::Decoder>(base->spec(), model::checkpoint_source(*base), linear_factory(method));
    decoder->round_small_tensors = true;
    decoder->to(device);
    std::vector<train::TrainedParameter> parameters;
    for (const auto& [name, linear] : decoder->linears())
      parameters.push_back({name, linear->weight, train::ParameterKind::weight, {}});
    const Movement start(*decoder, parameters);
    const torch::NoGradGuard no_grad;
    torch::manual_seed(9);
    for (auto& parameter : decoder->parameters())
      parameter.mul_((1 + 0.05 * torch::randn(parameter.sizes())).to(device));
    movement = start.report();
  }
};

TEST_P(SeqOnDevice, AModelIsSavedByteForByteAsFromTheCpu) {
  CRUMB_NEED_DEVICE(device);
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  const Trained here(folder, torch::kCPU), there(folder, device);
  save_model(dir / "here", *here.decoder, *here.base, {});
  save_model(dir / "there", *there.decoder, *there.base, {});
  EXPECT_TRUE(testing::read_file(dir / "there" / "model.safetensors") ==
              testing::read_file(dir / "here" / "model.safetensors"));
  EXPECT_GT(here.movement.flipped_share, 0);
  EXPECT_EQ(there.movement.flipped_share, here.movement.flipped_share);
  EXPECT_NEAR(there.movement.weight_distance, here.movement.weight_distance, 1e-6);
  EXPECT_NEAR(there.movement.scale_distance, here.movement.scale_distance, 1e-6);
}

}  // namespace
}  // namespace crumb::qat
