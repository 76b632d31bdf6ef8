#include "train/trainer.h"

#include <gmock/gmock.h>

#include <csignal>
#include <map>
#include <optional>

#include "core/common/rng.h"
#include "tests/train/fixtures.h"
#include "train/metrics.h"
#include "train/tensor_file.h"

namespace crumb::train {
namespace {

using ::testing::HasSubstr;

/// Cross-entropy that does something else at one step.
class Meddling : public Objective {
 public:
  explicit Meddling(std::function<void(Loss&, int)> meddle = {}) : meddle_(std::move(meddle)) {}
  Loss loss(const Batch& batch, const model::DecoderOutput& output, const torch::Tensor& head, double total) override {
    Loss loss = inner_->loss(batch, output, head, total);
    if (meddle_) meddle_(loss, calls_);
    ++calls_;
    return loss;
  }
  EvaluationSums evaluate(const Batch& batch, const model::DecoderOutput& output, const torch::Tensor& head) override {
    return inner_->evaluate(batch, output, head);
  }

 private:
  std::unique_ptr<Objective> inner_ = make_cross_entropy();
  std::function<void(Loss&, int)> meddle_;
  int calls_ = 0;
};

/// Trains the tiny decoder in `output`; returns its embedding at the end.
struct TinyRun {
  testing::TempDir text_dir;
  TextSplit text = split_text(tokens_of(many_documents(200), text_dir), 0.05, 16, 0, "text");
  Path output;
  TrainerOptions options;
  TrainSummary summary;
  static constexpr uint64_t kModelSeed = 7, kSamplerSeed = 5;

  explicit TinyRun(Path folder) : output(std::move(folder)) {
    std::filesystem::create_directories(output);
    options.optimizer.lr = 1e-2;
    options.optimizer.scale_lr = 1e-3;
    options.validate = {.every = 5, .windows = 4};
    options.checkpoint = {.every = 4, .keep = 2};
    options.plan = {.sequence_length = 16, .tokens = 0, .batch_windows = 3, .micro_windows = 2, .steps = 10};
  }

  torch::Tensor run(Objective& objective) {
    model::Decoder decoder(tiny_spec(), model::random_source(tiny_spec(), kModelSeed));
    std::vector<TrainedParameter> parameters;
    for (const auto& desc : arch::tensor_table(decoder.spec()))
      parameters.push_back({desc.hf_name, decoder.parameter(desc).set_requires_grad(true), ParameterKind::weight, {}});
    Sampler sampler({{text.train, 1.0}}, 16, kSamplerSeed);
    const ValidationSet validation({text.valid}, 16, options.validate.windows);
    const auto save = [&](const Path& folder) {
      AtomicFolder out(folder);
      write_tensors(out.temporary_path() / "w.safetensors", {{"w", decoder.head_weight()}});
      out.commit();
    };
    const TrainerParts parts{decoder, objective, parameters, sampler, validation, save, {}};
    summary = run_training(parts, options, output);
    return decoder.head_weight().detach().clone();
  }
};

std::vector<int64_t> logged_steps(const Path& output) {
  std::vector<int64_t> steps;
  for (const auto& line : read_log(output / "log.jsonl")) steps.push_back(line.at("step"));
  return steps;
}

std::vector<int64_t> count_to(int64_t last) {
  std::vector<int64_t> steps(static_cast<size_t>(last + 1));
  for (int64_t i = 0; i <= last; ++i) steps[static_cast<size_t>(i)] = i;
  return steps;
}

TEST(Trainer, LearnsAndWritesDownWhatItDid) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  tiny.options.plan.steps = 30;
  Meddling objective;
  tiny.run(objective);
  EXPECT_LT(tiny.summary.best_value, tiny.summary.start_value - 0.5);
  EXPECT_EQ(logged_steps(tiny.output), count_to(30));
  for (const char* name :
       {"model/w.safetensors", "last/w.safetensors", "curves.html", "checkpoints/step-000030/state.json"}) {
    EXPECT_TRUE(std::filesystem::exists(tiny.output / name)) << name;
  }
  EXPECT_FALSE(std::filesystem::exists(tiny.output / "checkpoints/step-000004"));
  EXPECT_THAT(testing::read_file(tiny.output / "curves.html"), HasSubstr("<polyline"));
}

TEST(Trainer, GoesOnAfterAStopBitForBit) {
  const testing::TempDir dir;
  TinyRun whole(dir / "whole"), stopped(dir / "stopped");
  Meddling plain, signals([](Loss&, int call) {
    if (call == 12) std::raise(SIGTERM);  // two micro-batches a step: in the seventh step
  });
  const torch::Tensor expected = whole.run(plain);
  stopped.run(signals);
  EXPECT_TRUE(stopped.summary.is_stopped);
  EXPECT_EQ(stopped.summary.steps, 7);
  EXPECT_TRUE(std::filesystem::exists(stopped.output / "checkpoints/step-000007/state.json"));
  Meddling again;
  EXPECT_TRUE(torch::equal(stopped.run(again), expected));
  EXPECT_EQ(logged_steps(stopped.output), count_to(10));
  EXPECT_EQ(testing::read_file(stopped.output / "model/w.safetensors"),
            testing::read_file(whole.output / "model/w.safetensors"));
}

TEST(Trainer, AnAverageOfTheWeightsIsWhatIsValidatedAndKept) {
  const testing::TempDir dir;
  TinyRun whole(dir / "whole"), stopped(dir / "stopped"), plain(dir / "plain");
  for (TinyRun* tiny : {&whole, &stopped}) tiny->options.optimizer.ema = 0.9;
  Meddling first, second, again, signals([](Loss&, int call) {
    if (call == 12) std::raise(SIGTERM);
  });
  const torch::Tensor expected = whole.run(first);
  EXPECT_TRUE(torch::equal(plain.run(second), expected)) << "the average changed the training";
  EXPECT_FALSE(torch::equal(read_tensors(whole.output / "last/w.safetensors").at("w"), expected));
  EXPECT_TRUE(torch::equal(read_tensors(plain.output / "last/w.safetensors").at("w"), expected));
  EXPECT_NE(whole.summary.best_value, plain.summary.best_value);
  stopped.run(signals);
  EXPECT_EQ(stopped.summary.steps, 7);
  EXPECT_TRUE(torch::equal(stopped.run(again), expected));
  for (const char* name :
       {"model/w.safetensors", "last/w.safetensors", "checkpoints/step-000010/optimizer.safetensors"})
    EXPECT_EQ(testing::read_file(stopped.output / name), testing::read_file(whole.output / name)) << name;
}

/// Trains, but the validation says always the same.
class Unmoved : public Meddling {
 public:
  using Meddling::Meddling;
  EvaluationSums evaluate(const Batch&, const model::DecoderOutput&, const torch::Tensor&) override {
    return {.tokens = 1, .cross_entropy = 2};
  }
};

TEST(Trainer, EndsWhenTheValidationGetsNoBetter) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run"), patient(dir / "patient");
  for (TinyRun* one : {&tiny, &patient}) one->options.validate.every = 2;
  tiny.options.validate.patience = 3;
  Unmoved first, second, third([](Loss&, int) { FAIL() << "a step was run"; });
  const torch::Tensor ended = tiny.run(first);
  patient.run(second);
  EXPECT_EQ(tiny.summary.steps, 3 * 2);
  EXPECT_EQ(tiny.summary.best_step, 0);
  EXPECT_FALSE(tiny.summary.is_stopped);
  EXPECT_EQ(patient.summary.steps, 10);
  EXPECT_TRUE(std::filesystem::exists(tiny.output / "last"));
  EXPECT_TRUE(torch::equal(tiny.run(third), ended)) << "a run that has ended does not go on";
}

TEST(Trainer, DropsLogLinesAfterTheCheckpointItGoesOnFrom) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  Meddling objective, again;
  const torch::Tensor expected = tiny.run(objective);
  std::filesystem::remove_all(
      tiny.output / "checkpoints/step-000010");  // as if killed after step 9 was logged, in the middle of a line
  std::filesystem::create_directories(tiny.output / "checkpoints/.step-000010.tmp-1-1");
  std::string log = testing::read_file(tiny.output / "log.jsonl");
  testing::write_file(tiny.output / "log.jsonl", log.substr(0, log.size() - 20));
  EXPECT_TRUE(torch::equal(tiny.run(again), expected));
  EXPECT_EQ(logged_steps(tiny.output), count_to(10));
  EXPECT_FALSE(std::filesystem::exists(tiny.output / "checkpoints/.step-000010.tmp-1-1"));
}

TEST(Trainer, AFinishedRunRunsNoMoreSteps) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  Meddling first, second([](Loss&, int) { FAIL() << "a step was run"; });
  const torch::Tensor expected = tiny.run(first);
  EXPECT_TRUE(torch::equal(tiny.run(second), expected));
}

TEST(Trainer, MicroBatchesAddUpToTheBatch) {
  const testing::TempDir dir;
  TinyRun one(dir / "one"), three(dir / "three");
  one.options.plan.micro_windows = 3;
  three.options.plan.micro_windows = 1;
  Meddling a, b;
  const torch::Tensor expected = one.run(a), got = three.run(b);
  // Ten steps of Adam amplify roundings of the sums where a second moment is near zero; most weights agree closely.
  EXPECT_LT((expected - got).abs().mean().item<double>(), 1e-5);
}

TEST(Trainer, StopsAtALossThatIsNotFiniteAndSaysWhatToTry) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  Meddling objective([](Loss& loss, int call) {
    if (call == 12) loss.total = loss.total * NAN;
  });
  const std::string error = testing::error_of([&] { tiny.run(objective); });
  EXPECT_THAT(error, HasSubstr("step 7: the loss is not finite; the last good checkpoint is"));
  EXPECT_THAT(error, HasSubstr("step-000004"));
  EXPECT_THAT(error, HasSubstr("optimizer.lr"));
  EXPECT_EQ(error.find('\n'), std::string::npos);
}

TEST(Trainer, AWeightThatIsNotFiniteIsNotSaved) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  tiny.options.optimizer.lr = 1e30;
  tiny.options.optimizer.weight_decay = 1e30;  // weights overflow in the first step, whose loss is finite
  tiny.options.checkpoint.every = 1;
  Meddling objective;
  const std::string error = testing::error_of([&] { tiny.run(objective); });
  EXPECT_THAT(error, HasSubstr("step 1: a weight is not finite; there is no checkpoint yet"));
  EXPECT_FALSE(newest_checkpoint(tiny.output).has_value());
}

TEST(Trainer, GoesOnWithTheSameInputsOnly) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  tiny.options.inputs = {{"text", "a"}};
  Meddling objective;
  tiny.run(objective);
  tiny.options.inputs = {{"text", "b"}};
  EXPECT_THAT(testing::error_of([&] { tiny.run(objective); }), HasSubstr("the text has changed since the run began"));
}

TEST(Trainer, ABestModelOfDroppedStepsIsMadeAgain) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  Meddling objective;
  tiny.run(objective);
  // As if killed after the last validation, before the checkpoint of step 10; then validated less often.
  std::filesystem::remove_all(tiny.output / "checkpoints/step-000010");
  testing::write_file(tiny.output / "model/w.safetensors", "of step 10");
  tiny.options.validate.every = 9;
  tiny.run(objective);
  EXPECT_EQ(tiny.summary.best_step, 10);
  EXPECT_NE(testing::read_file(tiny.output / "model/w.safetensors"), "of step 10");
}

/// What is written on stderr while `body` runs.
std::string warnings_of(const std::function<void()>& body) {
  ::testing::internal::CaptureStderr();
  body();
  return ::testing::internal::GetCapturedStderr();
}

/// Tokens of which capital letters, a share that grows along the text, are supervised.
TextSplit partly_supervised(const testing::TempDir& dir) {
  MarkedDocument document;
  const Rng rng(3);
  for (uint64_t i = 0; i < 40 * 16 + 1; ++i) {
    const bool is_capital = rng.uniform(2 * i) < static_cast<double>(i) / 700.0;
    document.text += static_cast<char>((is_capital ? 'A' : 'a') + static_cast<char>(rng.below(2 * i + 1, 26)));
    document.marks += is_capital ? '1' : '0';
  }
  const auto file = marked_tokens({document}, dir);
  return {whole(file), whole(file)};
}

/// Cross-entropy and its gradients by all logits at once: sums over capital targets, divided by `count`, or by their
/// own number.
struct Plain {
  double loss = 0, count = 0;
  std::map<std::string, torch::Tensor> gradients;

  void add(const Batch& batch, std::optional<double> divisor) {
    model::Decoder decoder(tiny_spec(), model::random_source(tiny_spec(), TinyRun::kModelSeed));
    std::map<std::string, torch::Tensor> parameters;
    for (const auto& desc : arch::tensor_table(decoder.spec()))
      parameters[desc.hf_name] = decoder.parameter(desc).set_requires_grad(true);
    const torch::Tensor logits = torch::matmul(decoder.forward(batch.ids).final_hidden, decoder.head_weight().t());
    const torch::Tensor nll = -logits.log_softmax(-1).gather(-1, batch.targets.unsqueeze(-1)).squeeze(-1);
    const torch::Tensor is_capital = (batch.targets <= 'Z').to(torch::kFloat32);
    const double supervised = is_capital.sum().item<double>();
    const torch::Tensor mean = (nll * is_capital).sum() / divisor.value_or(supervised);
    mean.backward();
    loss += mean.item<double>();
    count += supervised;
    for (const auto& [name, value] : parameters)
      gradients[name] = gradients.contains(name) ? gradients[name] + value.grad() : value.grad();
  }
};

double relative_distance(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

TEST(Trainer, AMaskedStepIsTheMeanOverTheSupervisedTokensOfAllItsMicroBatches) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  tiny.text = partly_supervised(tiny.text_dir);
  tiny.options.plan = {.sequence_length = 16, .tokens = 0, .batch_windows = 5, .micro_windows = 3, .steps = 1};
  tiny.options.optimizer.grad_clip = 0;
  tiny.options.validate.windows = 40;
  Meddling objective;
  tiny.run(objective);

  const Batch step = Sampler({{tiny.text.train, 1.0}}, 16, TinyRun::kSamplerSeed).batch(0, 5);
  Plain expected, of_means;
  const double count = (step.targets <= 'Z').sum().item<double>();
  expected.add(step, count);
  for (const auto& part : {step.windows(0, 3), step.windows(3, 2)}) of_means.add(part, std::nullopt);
  ASSERT_GT(count, 20);

  // After one step the first moment is (1 - beta1) times the gradient.
  const auto moments = read_tensors(tiny.output / "checkpoints/step-000001/optimizer.safetensors");
  for (const auto& [name, gradient] : expected.gradients) {
    const torch::Tensor got = moments.at(name + ".m") / (1.0 - tiny.options.optimizer.betas[0]);
    EXPECT_LT(relative_distance(got, gradient), 1e-5) << name;
    EXPECT_GT(relative_distance(got, of_means.gradients[name] / 2), 1e-2) << name << ": means of micro-batches pass";
  }
  const auto log = read_log(tiny.output / "log.jsonl");
  EXPECT_NEAR(log.at(1).at("loss").get<double>(), expected.loss, 1e-5);
  EXPECT_EQ(log.at(1).at("supervised"), static_cast<int64_t>(count));
  EXPECT_EQ(log.at(1).at("tokens"), 5 * 16);

  Plain validation;
  validation.add(ValidationSet({tiny.text.valid}, 16, 40).batch(0, 40), std::nullopt);
  EXPECT_NEAR(log.at(0).at("valid_cross_entropy").get<double>(), validation.loss, 1e-5);
}

/// Every other window of 16 has no supervised target.
TextSplit half_idle(const testing::TempDir& dir) {
  MarkedDocument document;
  for (int i = 0; i < 40 * 16 + 1; ++i) {
    document.text += static_cast<char>('a' + i * i % 26);
    document.marks += (i + 15) / 16 % 2 == 0 ? '1' : '0';  // targets of window w: 16 w + 1 .. 16 w + 16
  }
  const auto file = marked_tokens({document}, dir);
  return {whole(file), whole(file)};
}

TEST(Trainer, AStepWithoutASupervisedTokenIsPassedOverWithAWarning) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  tiny.text = half_idle(tiny.text_dir);
  tiny.options.plan = {.sequence_length = 16, .tokens = 0, .batch_windows = 1, .micro_windows = 1, .steps = 10};
  tiny.options.checkpoint = {.every = 1, .keep = 20};
  tiny.options.validate.windows = 40;  // half of them idle, too
  Meddling objective;
  const std::string warnings = warnings_of([&] { tiny.run(objective); });
  const auto masters = [&](int64_t step) {
    return testing::read_file(tiny.output / fmt::format("checkpoints/step-{:06d}/masters.safetensors", step));
  };
  int idle = 0;
  for (const auto& line : read_log(tiny.output / "log.jsonl")) {
    const int64_t step = line.at("step");
    if (step == 0) continue;
    const bool is_idle = line.at("supervised") == 0;
    idle += is_idle ? 1 : 0;
    EXPECT_EQ(line.contains("loss"), !is_idle) << step;
    const std::string warning =
        fmt::format("step {}: none of its 16 tokens is supervised; the model stays as it is", step);
    EXPECT_EQ(warnings.find(warning) != std::string::npos, is_idle) << step;
    if (step > 1) {
      EXPECT_EQ(masters(step) == masters(step - 1), is_idle) << step;
    }
  }
  EXPECT_GT(idle, 2);
  EXPECT_LT(idle, 8);
  EXPECT_EQ(logged_steps(tiny.output), count_to(10));
}

TEST(Trainer, GoesOnAfterAStopBitForBitWhereStepsWerePassedOver) {
  const testing::TempDir dir;
  TinyRun whole(dir / "whole"), stopped(dir / "stopped");
  for (TinyRun* run : {&whole, &stopped}) {
    run->text = half_idle(run->text_dir);
    run->options.validate.windows = 40;
    run->options.plan = {.sequence_length = 16, .tokens = 0, .batch_windows = 1, .micro_windows = 1, .steps = 12};
  }
  Meddling plain, again, signals([](Loss&, int call) {
    if (call == 3) std::raise(SIGTERM);
  });
  torch::Tensor expected, got;
  warnings_of([&] {
    expected = whole.run(plain);
    stopped.run(signals);
    ASSERT_TRUE(stopped.summary.is_stopped);
    ASSERT_GT(stopped.summary.steps, 4) << "none of the steps so far was passed over";
    got = stopped.run(again);
  });
  EXPECT_TRUE(torch::equal(got, expected));
  for (const char* name : {"optimizer.safetensors", "state.json"})
    EXPECT_EQ(testing::read_file(stopped.output / "checkpoints/step-000012" / name),
              testing::read_file(whole.output / "checkpoints/step-000012" / name));
}

TEST(Trainer, WritesNothingOfMasksWhereEveryTokenIsSupervised) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  Meddling objective;
  tiny.run(objective);
  for (const auto& line : read_log(tiny.output / "log.jsonl")) EXPECT_FALSE(line.contains("supervised"));
  EXPECT_THAT(testing::read_file(tiny.output / "checkpoints/step-000010/state.json"),
              ::testing::Not(HasSubstr("idle_steps")));
}

void flip_bit(const Path& path, size_t place) {
  std::string bytes = testing::read_file(path);
  bytes.at(place < bytes.size() ? place : bytes.size() / 2) ^= 1;
  testing::write_file(path, bytes);
}

void cut(const Path& path) { std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2); }

TEST(Trainer, GoesOnFromTheNewestWholeCheckpointAndNamesWhatIsDamaged) {
  const testing::TempDir dir;
  TinyRun whole(dir / "whole");
  Meddling plain;
  const torch::Tensor expected = whole.run(plain);
  constexpr size_t kMiddle = std::string::npos;
  using Damage = std::function<void(const Path&)>;
  const std::vector<std::pair<std::string, Damage>> damages = {
      {"masters.safetensors is not as it was written",
       [](const Path& folder) { flip_bit(folder / "masters.safetensors", kMiddle); }},
      {"optimizer.safetensors is not as it was written",
       [](const Path& folder) { flip_bit(folder / "optimizer.safetensors", kMiddle); }},
      {"optimizer.safetensors is not as it was written",
       [](const Path& folder) { cut(folder / "optimizer.safetensors"); }},
      {"masters.safetensors is not as it was written",
       [](const Path& folder) {
         std::filesystem::copy_file(folder.parent_path() / "step-000008/masters.safetensors",
                                    folder / "masters.safetensors", std::filesystem::copy_options::overwrite_existing);
       }},
      {"masters.safetensors is missing",
       [](const Path& folder) { std::filesystem::remove(folder / "masters.safetensors"); }},
      {"state.json is missing", [](const Path& folder) { std::filesystem::remove(folder / "state.json"); }},
      {"state.json:", [](const Path& folder) { cut(folder / "state.json"); }},
      {"state.json is not as it was written",
       [](const Path& folder) {  // best_step 10 becomes 11
         const std::string text = testing::read_file(folder / "state.json");
         flip_bit(folder / "state.json", text.find("\"best_step\": 10") + 14);
       }},
      {"is not a key of a training state",
       [](const Path& folder) {
         const std::string text = testing::read_file(folder / "state.json");
         flip_bit(folder / "state.json", text.find("checksums"));
       }},
      {"state.json says step 8",
       [](const Path& folder) {
         std::filesystem::remove_all(folder);
         std::filesystem::copy(folder.parent_path() / "step-000008", folder, std::filesystem::copy_options::recursive);
       }},
  };
  for (const auto& [message, damage] : damages) {
    SCOPED_TRACE(message);
    const Path run = dir / "damaged";
    std::filesystem::remove_all(run);
    std::filesystem::copy(whole.output, run, std::filesystem::copy_options::recursive);
    const Path newest = run / "checkpoints/step-000010";
    damage(newest);
    EXPECT_THAT(damage_of(newest), HasSubstr(message));
    TinyRun again(run);
    torch::Tensor got;
    const std::string warnings = warnings_of([&] { got = again.run(plain); });
    EXPECT_THAT(warnings, HasSubstr("warning: " + newest.string() + " is damaged ("));
    EXPECT_THAT(warnings, HasSubstr(message));
    EXPECT_THAT(warnings, HasSubstr("going on from " + (run / "checkpoints/step-000008").string()));
    EXPECT_TRUE(torch::equal(got, expected));
    EXPECT_EQ(damage_of(newest), "") << "it was made again";
    EXPECT_EQ(logged_steps(run), count_to(10));
  }
}

TEST(Trainer, WithoutAWholeCheckpointRefusesToStartAgainSilently) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  Meddling objective;
  tiny.run(objective);
  for (const char* step : {"step-000008", "step-000010"}) cut(tiny.output / "checkpoints" / step / "state.json");
  std::string error;
  const std::string warnings = warnings_of([&] { error = testing::error_of([&] { tiny.run(objective); }); });
  EXPECT_EQ(error, (tiny.output / "checkpoints").string() +
                       ": no checkpoint is whole; put one back, or start again with --force");
  EXPECT_THAT(warnings, HasSubstr("step-000010 is damaged"));
  EXPECT_THAT(warnings, HasSubstr("step-000008 is damaged"));
}

TEST(Trainer, ADamagedCheckpointNeverOutlivesAWholeOne) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  Meddling objective;
  tiny.run(objective);
  cut(tiny.output / "checkpoints/step-000010/optimizer.safetensors");
  tiny.options.checkpoint = {.every = 9, .keep = 1};
  tiny.options.plan.steps = 9;
  warnings_of([&] { tiny.run(objective); });
  EXPECT_TRUE(std::filesystem::exists(tiny.output / "checkpoints/step-000009"));
  EXPECT_FALSE(std::filesystem::exists(tiny.output / "checkpoints/step-000010"));
  EXPECT_FALSE(std::filesystem::exists(tiny.output / "checkpoints/step-000008"));
}

TEST(Trainer, GoesOnFromACheckpointWithoutChecksumsAndSaysSo) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  Meddling objective;
  const torch::Tensor expected = tiny.run(objective);
  std::filesystem::remove_all(tiny.output / "checkpoints/step-000010");
  const Path state = tiny.output / "checkpoints/step-000008/state.json";
  auto json = nlohmann::ordered_json::parse(testing::read_file(state));
  ASSERT_EQ(json.erase("checksums"), 1U);
  testing::write_file(state, json.dump(2));
  torch::Tensor got;
  EXPECT_THAT(warnings_of([&] { got = tiny.run(objective); }), HasSubstr("step-000008: written without checksums"));
  EXPECT_TRUE(torch::equal(got, expected));
  EXPECT_THAT(warnings_of([&] { tiny.run(objective); }), ::testing::Not(HasSubstr("warning")));
  cut(tiny.output / "checkpoints/step-000008/optimizer.safetensors");
  EXPECT_THAT(damage_of(tiny.output / "checkpoints/step-000008"), HasSubstr("truncated"));
}

TEST(Trainer, AModelThatHasGoneIsMadeAgain) {
  const testing::TempDir dir;
  TinyRun tiny(dir / "run");
  Meddling objective;
  tiny.run(objective);
  std::filesystem::remove_all(tiny.output / "checkpoints/step-000010");
  std::filesystem::remove_all(tiny.output / "model");
  tiny.run(objective);
  EXPECT_TRUE(std::filesystem::exists(tiny.output / "model/w.safetensors"));
}

TEST(LoadMasters, TakesWhatWasTrainedAndNamesWhatDoesNotFit) {
  const testing::TempDir dir;
  write_tensors(dir / "masters.safetensors", {{"w", torch::full({2}, 3.0)}});
  const auto ones = [] { return torch::ones({2}); };
  const TrainedParameter w{"w", ones(), ParameterKind::weight, {}}, other{"o", ones(), ParameterKind::weight, {}},
      scale{"w.log_scale", ones(), ParameterKind::scale, {}};
  load_masters(dir.path(), {w, other});
  EXPECT_TRUE(torch::equal(w.value, torch::full({2}, 3.0)));
  EXPECT_TRUE(torch::equal(other.value, ones()));
  EXPECT_THAT(testing::error_of([&] { load_masters(dir.path(), {other}); }), HasSubstr("w has no place in this model"));
  EXPECT_THAT(testing::error_of([&] { load_masters(dir.path(), {w, scale}); }), HasSubstr("no w.log_scale"));
  EXPECT_THAT(testing::error_of([&] {
                load_masters(dir.path(), {{"w", torch::ones({3}), ParameterKind::weight, {}}});
              }),
              HasSubstr("another shape"));
}

TEST(ReadLog, LeavesOutBrokenLinesWithAWarningButNotTheOneAKillCutShort) {
  const testing::TempDir dir;
  const Path path = dir / "log.jsonl";
  testing::write_file(path, "{\"step\": 1}\n{\"step\": 2, \"loss\": nan}\n" + std::string(100'000, '[') +
                                "\n{\"step\": 4}\n{\"step\": 5, \"lo");
  ::testing::internal::CaptureStderr();
  const auto lines = read_log(path);
  const std::string warnings = ::testing::internal::GetCapturedStderr();
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0], nlohmann::json({{"step", 1}}));
  EXPECT_EQ(lines[1], nlohmann::json({{"step", 4}}));
  EXPECT_THAT(warnings, HasSubstr("log.jsonl:2:22: not valid JSON: "));
  EXPECT_THAT(warnings, HasSubstr("log.jsonl:3:129: nested deeper than 128 levels; the line is left out"));
  EXPECT_EQ(warnings.find("log.jsonl:5"), std::string::npos);
  MetricsLog(path, 1);
  EXPECT_EQ(testing::read_file(path), "{\"step\": 1}\n");
}

TEST(Checkpoints, AStateIsReadOnlyFromWhatItIs) {
  const testing::TempDir dir;
  const Path folder = dir / "step-000003";
  testing::fs::create_directories(folder);
  for (const char* name : {"masters.safetensors", "optimizer.safetensors"}) testing::write_file(folder / name, "");
  const TrainState state{.step = 3, .measure = "kl", .threads = 2, .isa = "avx2", .torch_version = "2", .inputs = {}};
  const auto damage = [&](const char* key, const nlohmann::json& value) {
    auto json = nlohmann::json(state.to_json());
    json[key] = value;
    testing::write_file(folder / "state.json", json.dump());
    return damage_of(folder);
  };
  const std::string where = (folder / "state.json").string();
  EXPECT_EQ(damage("step", 2.7), where + ": step must be an integer, not 2.7");
  EXPECT_EQ(damage("step", nullptr), where + ": step is missing");
  EXPECT_EQ(damage("threads", 1e308), where + ": threads must be an integer, not 1e+308");
  EXPECT_EQ(damage("inputs", {{"text", 4}}), where + ": text must be a string, not 4");
  testing::write_file(folder / "state.json", std::string(100'000, '['));
  EXPECT_EQ(damage_of(folder), where + ":1:129: nested deeper than 128 levels");
}

TEST(Checkpoints, AreOrderedByStepNotByName) {
  const testing::TempDir dir;
  for (const char* name : {"step-999800", "step-1000000", "step-1000200"}) {
    testing::fs::create_directories(dir / "checkpoints" / name);
    testing::write_file(dir / "checkpoints" / name / "state.json", "{}");
  }
  testing::fs::create_directories(dir / "checkpoints/step-2000000.old");  // a copy that someone made
  EXPECT_EQ(newest_checkpoint(dir.path())->filename(), "step-1000200");
}

}  // namespace
}  // namespace crumb::train
