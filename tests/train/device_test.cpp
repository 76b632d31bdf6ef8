// Training on other devices: the CPU's losses, and a run that goes on bit for bit.
#include <csignal>

#include "tests/testing/devices.h"
#include "tests/train/fixtures.h"
#include "train/metrics.h"
#include "train/tensor_file.h"
#include "train/trainer.h"

namespace crumb::train {
namespace {

class TrainOnDevice : public testing::OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, TrainOnDevice, testing::gpus());

std::vector<TrainedParameter> three_kinds(torch::Device device) {
  torch::manual_seed(0);
  const auto add = [&](const std::string& name, const torch::Tensor& value, ParameterKind kind) {
    return TrainedParameter{name, value.to(device).set_requires_grad(true), kind, {}};
  };
  std::vector<TrainedParameter> out{add("w", torch::randn({37, 53}), ParameterKind::weight),
                                    add("s", torch::randn({37, 1}), ParameterKind::scale),
                                    add("b", torch::randn({53}), ParameterKind::small)};
  out[0].row_factor = (torch::rand({37}) + 0.5).to(device);
  return out;
}

TEST_P(TrainOnDevice, TwentyStepsOfTheOptimizerEqualTheCpus) {
  CRUMB_NEED_DEVICE(device);
  const OptimizerOptions options{.betas = {0.9, 0.95}, .weight_decay = 0.1};
  Optimizer here(three_kinds(torch::kCPU), options), there(three_kinds(device), options);
  for (int step = 0; step < 20; ++step) {
    for (size_t i = 0; i < 3; ++i) {
      torch::Tensor a = here.parameters()[i].value, b = there.parameters()[i].value;
      a.mutable_grad() = torch::randn_like(a);
      b.mutable_grad() = a.grad().to(device);
    }
    EXPECT_NEAR(there.gradient_norm(), here.gradient_norm(), 1e-6 * here.gradient_norm());
    EXPECT_NEAR(there.scale_gradient_norm(), here.scale_gradient_norm(), 1e-6 * here.scale_gradient_norm());
    for (Optimizer* optimizer : {&here, &there}) optimizer->step({.lr = 1e-2, .scale_lr = 1e-3}, 0.7);
  }
  for (size_t i = 0; i < 3; ++i) {
    const torch::Tensor a = here.parameters()[i].value.detach(), b = there.parameters()[i].value.detach();
    EXPECT_LT((a - b.cpu()).abs().max().item<double>(), 3e-6) << here.parameters()[i].name;
  }
  EXPECT_TRUE(there.is_finite());
  torch::NoGradGuard no_grad;
  there.parameters()[2].value.fill_(INFINITY);
  EXPECT_FALSE(there.is_finite());
}

/// Cross-entropy that calls `meddle` before each micro-batch.
class Meddling : public Objective {
 public:
  explicit Meddling(std::function<void(int)> meddle = {}) : meddle_(std::move(meddle)) {}
  Loss loss(const Batch& batch, const model::DecoderOutput& output, const torch::Tensor& head, double total) override {
    if (meddle_) meddle_(calls_);
    ++calls_;
    return inner_->loss(batch, output, head, total);
  }
  EvaluationSums evaluate(const Batch& batch, const model::DecoderOutput& output, const torch::Tensor& head) override {
    return inner_->evaluate(batch, output, head);
  }

 private:
  std::unique_ptr<Objective> inner_ = make_cross_entropy();
  std::function<void(int)> meddle_;
  int calls_ = 0;
};

/// Ten steps of the tiny decoder; its embedding at the end.
torch::Tensor train_tiny(const Path& output, torch::Device device, Objective& objective) {
  std::filesystem::create_directories(output);
  TrainerOptions options;
  options.optimizer.lr = 1e-3;
  options.optimizer.scale_lr = 1e-3;
  options.validate = {.every = 5, .windows = 4};
  options.checkpoint = {.every = 4, .keep = 2};
  options.plan = {.sequence_length = 16, .tokens = 0, .batch_windows = 3, .micro_windows = 2, .steps = 10};
  options.device = device;
  model::Decoder decoder(tiny_spec(), model::random_source(tiny_spec(), 7));
  decoder.to(device);
  std::vector<TrainedParameter> parameters;
  for (const auto& desc : arch::tensor_table(decoder.spec()))
    parameters.push_back({desc.hf_name, decoder.parameter(desc).set_requires_grad(true), ParameterKind::weight, {}});
  const testing::TempDir text_dir;
  const auto split = split_text(tokens_of(many_documents(200), text_dir), 0.05, 16, 0, "text");
  Sampler sampler({{split.train, 1.0}}, 16, 5);
  const ValidationSet validation({split.valid}, 16, options.validate.windows);
  const auto save = [&](const Path& folder) {
    AtomicFolder out(folder);
    write_tensors(out.temporary_path() / "w.safetensors", {{"w", decoder.head_weight()}});
    out.commit();
  };
  const TrainerParts parts{decoder, objective, parameters, sampler, validation, save, {}};
  run_training(parts, options, output);
  return decoder.head_weight().detach().cpu();
}

TEST_P(TrainOnDevice, LossesOfTenStepsEqualTheCpus) {
  CRUMB_NEED_DEVICE(device);
  const testing::TempDir dir;
  Meddling here, there;
  train_tiny(dir / "here", torch::kCPU, here);
  train_tiny(dir / "there", device, there);
  const auto expected = read_log(dir / "here" / "log.jsonl"), actual = read_log(dir / "there" / "log.jsonl");
  ASSERT_EQ(actual.size(), expected.size());
  int compared = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    for (const char* key : {"loss", "gradient_norm", "valid_cross_entropy"}) {
      if (!expected[i].contains(key)) continue;
      const double value = expected[i].at(key);
      EXPECT_NEAR(actual[i].at(key).get<double>(), value, 1e-3 * value) << key << " of line " << i;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 23);  // ten steps, and validations at the start, after five steps and at the end
}

TEST_P(TrainOnDevice, AStoppedRunGoesOnBitForBit) {
  CRUMB_NEED_DEVICE(device);
  const testing::TempDir dir;
  Meddling plain, again, stopping([](int call) {
    if (call == 12) std::raise(SIGTERM);  // two micro-batches a step: in the seventh step
  });
  const torch::Tensor expected = train_tiny(dir / "whole", device, plain);
  train_tiny(dir / "stopped", device, stopping);
  ASSERT_TRUE(std::filesystem::exists(dir / "stopped" / "checkpoints/step-000007/state.json"));
  EXPECT_TRUE(torch::equal(train_tiny(dir / "stopped", device, again), expected));
  for (const char* name : {"model/w.safetensors", "checkpoints/step-000010/optimizer.safetensors"})
    EXPECT_TRUE(testing::read_file(dir / "stopped" / name) == testing::read_file(dir / "whole" / name)) << name;
}

TEST_P(TrainOnDevice, MemoryThatIsFullSaysWhereAndWhatToTry) {
  CRUMB_NEED_DEVICE(device);
  const testing::TempDir dir;
  Meddling objective([](int call) {
    TORCH_CHECK_WITH(OutOfMemoryError, call < 12, "CUDA out of memory. Tried to allocate 2.00 GiB.");
  });
  EXPECT_EQ(testing::error_of([&] { train_tiny(dir / "run", device, objective); }),
            "step 7: CUDA out of memory; the last good checkpoint is " +
                (dir / "run" / "checkpoints/step-000004").string() +
                "; try a smaller schedule.micro_batch than 2, in another output or with --force");
}

}  // namespace
}  // namespace crumb::train
