// The objective of distillation on other devices equals that on the CPU.
#include "distill/model_teacher.h"
#include "distill/objective.h"
#include "tests/model/models.h"
#include "tests/testing/devices.h"

namespace crumb::distill {
namespace {

using testing::lively_source;
using testing::random_ids;
using testing::small_spec;

constexpr int64_t kVocab = 61;

class DistillOnDevice : public testing::OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, DistillOnDevice, testing::gpus());

struct Result {
  train::Loss loss;
  train::EvaluationSums sums;
  torch::Tensor gradient;  // of the embedding
};

Result compute(torch::Device device, const std::string& normalize) {
  const auto teacher = std::make_shared<ModelTeacher>(small_spec(), lively_source(2));
  teacher->prepare(device, torch::kFloat32);
  model::Decoder student(small_spec(), lively_source(1));
  student.to(device);
  const auto objective =
      distill_objective({.kl = 0.7, .jsd = 0.3, .hidden_mse = 2, .cross_entropy = 0.4, .hidden_normalize = normalize},
                        student.spec(), teacher);
  const train::Batch batch{.ids = random_ids(2, 13, kVocab, 1).to(device),
                           .targets = random_ids(2, 13, kVocab, 2).to(device),
                           .mask = (random_ids(2, 13, 3, 3) > 0).to(torch::kFloat32).to(device)};
  Result result;
  result.loss = objective->loss(batch, student.forward(batch.ids, objective->wanted_layers()), student.head_weight(),
                                batch.num_supervised());
  result.loss.total.backward();
  const torch::NoGradGuard no_grad;
  result.sums = objective->evaluate(batch, student.forward(batch.ids), student.head_weight());
  result.gradient = student.parameters()[0].grad().cpu();
  return result;
}

TEST_P(DistillOnDevice, LossesGradientsAndSumsEqualTheCpus) {
  CRUMB_NEED_DEVICE(device);
  for (const char* normalize : {"window", "token", "none"}) {
    const Result expected = compute(torch::kCPU, normalize), actual = compute(device, normalize);
    EXPECT_EQ(actual.loss.parts.size(), 4U);
    for (const auto& [name, value] : expected.loss.parts)
      EXPECT_NEAR(actual.loss.parts.at(name), value, 1e-4 * value) << name;
    EXPECT_LT(testing::relative_distance(actual.gradient, expected.gradient), 1e-4);
    EXPECT_EQ(actual.sums.tokens, expected.sums.tokens);
    EXPECT_NEAR(actual.sums.kl, expected.sums.kl, 1e-4 * expected.sums.kl);
    EXPECT_NEAR(actual.sums.cross_entropy, expected.sums.cross_entropy, 1e-4 * expected.sums.cross_entropy);
    EXPECT_EQ(actual.sums.top1, expected.sums.top1);
  }
}

}  // namespace
}  // namespace crumb::distill
