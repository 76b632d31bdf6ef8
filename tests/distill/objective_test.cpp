#include "distill/objective.h"

#include "core/common/config.h"
#include "distill/hidden_mse.h"
#include "distill/model_teacher.h"
#include "distill/remembering_teacher.h"
#include "tests/model/models.h"

namespace crumb::distill {
namespace {

using testing::error_of;
using testing::lively_source;
using testing::random_ids;
using testing::relative_distance;
using testing::small_spec;

constexpr int64_t kVocab = 61;

std::shared_ptr<ModelTeacher> make_teacher(uint64_t seed = 2, int64_t layers = 2) {
  return std::make_shared<ModelTeacher>(small_spec(layers), lively_source(seed));
}

train::Batch random_batch(int64_t rows, int64_t tokens, bool with_mask) {
  train::Batch batch{
      .ids = random_ids(rows, tokens, kVocab, 1), .targets = random_ids(rows, tokens, kVocab, 2), .mask = {}};
  if (with_mask) batch.mask = (random_ids(rows, tokens, 3, 3) > 0).to(torch::kFloat32);
  return batch;
}

train::Batch rows_of(const train::Batch& batch, int64_t begin, int64_t count) {
  const auto part = [&](const torch::Tensor& x) { return x.defined() ? x.narrow(0, begin, count) : x; };
  return {.ids = part(batch.ids), .targets = part(batch.targets), .mask = part(batch.mask)};
}

train::Loss compute(train::Objective& objective, model::Decoder& student, const train::Batch& batch, double total) {
  return objective.loss(batch, student.forward(batch.ids, objective.wanted_layers()), student.head_weight(), total);
}

/// Gradients of all parameters, one vector.
torch::Tensor gradient_vector(model::Decoder& decoder) {
  std::vector<torch::Tensor> parts;
  for (const auto& parameter : decoder.parameters()) parts.push_back(parameter.grad().flatten());
  return torch::cat(parts);
}

/// The loss by its definition, on all logits, with autograd through plain operations.
torch::Tensor plain_loss(const ObjectiveOptions& o, model::Decoder& student, Teacher& teacher,
                         const train::Batch& batch) {
  const auto mine = student.forward(batch.ids, {0, 1});
  const auto taught = teacher.outputs(batch.ids, {0, 1});
  const torch::Tensor mask = batch.mask.defined() ? batch.mask : torch::ones(batch.ids.sizes());
  const torch::Tensor logits = torch::matmul(mine.final_hidden, student.head_weight().t());
  const torch::Tensor log_p = (torch::matmul(taught.final_hidden, taught.head.t()) / o.temperature).log_softmax(-1);
  const torch::Tensor log_q = (logits / o.temperature).log_softmax(-1);
  const torch::Tensor p = log_p.exp(), q = log_q.exp(), log_m = (o.jsd_beta * p + (1 - o.jsd_beta) * q).log();
  const torch::Tensor confidence = p.gather(2, batch.targets.unsqueeze(2)).squeeze(2);
  const torch::Tensor forward = (p * (log_p - log_q)).sum(-1), reverse = (q * (log_q - log_p)).sum(-1);
  const torch::Tensor jsd =
      o.jsd_beta * (p * (log_p - log_m)).sum(-1) + (1 - o.jsd_beta) * (q * (log_q - log_m)).sum(-1);
  const torch::Tensor divergences = o.kl * forward + o.reverse_kl * reverse + o.jsd * jsd +
                                    o.cakld * (confidence * reverse + (1 - confidence) * forward);
  const torch::Tensor ce = -logits.log_softmax(-1).gather(2, batch.targets.unsqueeze(2)).squeeze(2);
  torch::Tensor loss = ((divergences * (o.temperature * o.temperature) + o.cross_entropy * ce) * mask).sum();
  const torch::Tensor count = mask.sum(1);
  for (int layer = 0; layer < 2; ++layer) {
    const torch::Tensor weight = mask.unsqueeze(2), h = taught.hidden.at(layer);
    const torch::Tensor squares = ((mine.hidden.at(layer) - h).square() * weight).sum(2), scales = h.square().sum(2);
    torch::Tensor distance = squares.sum();
    if (o.hidden_normalize == "window") distance = (squares.sum(1) / (scales * mask).sum(1) * count).sum() / 2;
    if (o.hidden_normalize == "token") distance = (squares / scales).sum() / 2;
    loss = loss + o.hidden_mse * distance;
  }
  return loss / mask.sum();
}

/// Loss and gradients are those of the definition. Returns the loss.
train::Loss expect_definition(const ObjectiveOptions& options, const std::shared_ptr<Teacher>& teacher,
                              const train::Batch& batch) {
  model::Decoder student(small_spec(), lively_source(1));
  const auto objective = distill_objective(options, student.spec(), teacher);
  train::Loss loss = compute(*objective, student, batch, batch.num_supervised());
  loss.total.backward();
  const torch::Tensor gradient = gradient_vector(student);
  student.zero_grad();
  const torch::Tensor expected = plain_loss(options, student, *teacher, batch);
  expected.backward();
  EXPECT_NEAR(loss.total.item<double>(), expected.item<double>(), 2e-6 * expected.item<double>());
  EXPECT_LT(relative_distance(gradient, gradient_vector(student)), 1e-5);
  return loss;
}

TEST(DistillObjective, EqualsItsDefinition) {
  const auto teacher = make_teacher();
  for (const bool with_mask : {false, true}) {
    for (const char* normalize : {"window", "token", "none"}) {
      ObjectiveOptions options{.kl = 0.7, .hidden_mse = 0.3, .cross_entropy = 0.4, .temperature = 1.7};
      options.hidden_normalize = normalize;
      const train::Batch batch = random_batch(3, 11, with_mask);
      const train::Loss loss = expect_definition(options, teacher, batch);
      const double sum =
          0.7 * loss.parts.at("kl") + 0.3 * loss.parts.at("hidden_mse") + 0.4 * loss.parts.at("cross_entropy");
      EXPECT_NEAR(loss.total.item<double>(), sum, 2e-6 * sum);
    }
  }
}

TEST(DistillObjective, APackedWindowLosesWhatItsDocumentsLoseAlone) {
  const ObjectiveOptions options{.kl = 0.7, .hidden_mse = 0.3, .cross_entropy = 0.4, .hidden_normalize = "token"};
  const auto teacher = make_teacher();
  model::Decoder student(small_spec(), lively_source(1));
  const auto objective = distill_objective(options, student.spec(), teacher);
  train::Batch packed = random_batch(1, 14, false);
  packed.documents = torch::tensor({{0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2, 2}}, torch::kInt64);
  const double tokens = packed.num_supervised();
  const auto gradient = [&](const auto& add_losses) {
    student.zero_grad();
    add_losses();
    return gradient_vector(student);
  };
  double together = 0, alone = 0, kl_together = 0, kl_alone = 0;
  const auto add = [&](const train::Batch& batch, double& total, double& kl) {
    const auto output = student.forward(batch.ids, objective->wanted_layers(), batch.documents);
    const train::Loss loss = objective->loss(batch, output, student.head_weight(), tokens);
    loss.total.backward();
    total += loss.total.item<double>();
    kl += objective->evaluate(batch, output, student.head_weight()).kl;
  };
  const torch::Tensor expected = gradient([&] {
    for (const auto& [begin, end] : {std::pair(0, 5), std::pair(5, 7), std::pair(7, 14)}) {
      add({.ids = packed.ids.slice(1, begin, end), .targets = packed.targets.slice(1, begin, end), .mask = {}}, alone,
          kl_alone);
    }
  });
  EXPECT_LT(relative_distance(gradient([&] { add(packed, together, kl_together); }), expected), 1e-5);
  EXPECT_NEAR(together, alone, 2e-6 * alone);
  EXPECT_NEAR(kl_together, kl_alone, 2e-6 * kl_alone);
}

TEST(DistillObjective, EveryDivergenceIsWeightedAndReportedByItsKey) {
  const auto teacher = make_teacher();
  const train::Batch batch = random_batch(3, 11, true);
  ObjectiveOptions all{.kl = 0.2, .reverse_kl = 0.3, .jsd = 0.4, .cakld = 0.5, .temperature = 1.7, .jsd_beta = 0.2};
  for (const ObjectiveOptions& options :
       {ObjectiveOptions{.kl = 0, .reverse_kl = 1}, ObjectiveOptions{.kl = 0, .jsd = 1},
        ObjectiveOptions{.kl = 0, .cakld = 1}, all}) {
    const train::Loss loss = expect_definition(options, teacher, batch);
    double sum = 0;
    for (const auto& [name, weight] : {std::pair("kl", options.kl), std::pair("reverse_kl", options.reverse_kl),
                                       std::pair("jsd", options.jsd), std::pair("cakld", options.cakld)}) {
      EXPECT_EQ(loss.parts.contains(name), weight != 0) << name;
      if (weight != 0) sum += weight * loss.parts.at(name);
    }
    EXPECT_NEAR(loss.total.item<double>(), sum, 2e-6 * sum);
  }
}

/// What a model said of some batches, played back.
class RecordedTeacher : public Teacher {
 public:
  RecordedTeacher(arch::DecoderSpec spec, std::vector<std::pair<torch::Tensor, TeacherOutput>> record)
      : spec_(std::move(spec)), record_(std::move(record)) {}
  TeacherOutput outputs(const torch::Tensor& ids, const std::vector<int>& layers,
                        const torch::Tensor& /*documents*/) override {
    for (const auto& [recorded, output] : record_) {
      if (!torch::equal(recorded, ids)) continue;
      for (const int layer : layers) EXPECT_TRUE(output.hidden.contains(layer));
      return output;
    }
    ADD_FAILURE() << "ids that were not recorded";
    return {};
  }
  const arch::DecoderSpec& spec() const override { return spec_; }

 private:
  arch::DecoderSpec spec_;
  std::vector<std::pair<torch::Tensor, TeacherOutput>> record_;
};

TEST(DistillObjective, ARecordedTeacherTeachesAsTheModelDoes) {
  const ObjectiveOptions options{.kl = 1, .jsd = 0.5, .hidden_mse = 4, .cross_entropy = 0.1};
  const train::Batch batch = random_batch(3, 11, true);
  const auto teacher = make_teacher();
  const auto copied = [](TeacherOutput output) {  // through memory that the model does not share
    output.final_hidden = output.final_hidden.clone();
    output.head = output.head.clone();
    for (auto& [layer, states] : output.hidden) states = states.clone();
    return output;
  };
  const auto recorded = std::make_shared<RecordedTeacher>(
      teacher->spec(), std::vector{std::pair(batch.ids, copied(teacher->outputs(batch.ids, {0, 1})))});
  const auto step = [&](const std::shared_ptr<Teacher>& source) {
    model::Decoder student(small_spec(), lively_source(1));
    const auto objective = distill_objective(options, student.spec(), source);
    const auto before = objective->evaluate(batch, student.forward(batch.ids), student.head_weight());
    compute(*objective, student, batch, batch.num_supervised()).total.backward();
    torch::optim::AdamW optimizer(student.parameters());
    optimizer.step();
    std::vector<torch::Tensor> values;
    for (const auto& parameter : student.parameters()) values.push_back(parameter.detach().flatten());
    return std::pair(torch::cat(values), before.kl);
  };
  const auto [expected, expected_kl] = step(teacher);
  const auto [actual, actual_kl] = step(recorded);
  EXPECT_TRUE(torch::equal(actual, expected));
  EXPECT_EQ(actual_kl, expected_kl);
}

/// Counts how often it is asked.
class CountingTeacher : public Teacher {
 public:
  explicit CountingTeacher(std::shared_ptr<Teacher> asked) : asked_(std::move(asked)) {}
  TeacherOutput outputs(const torch::Tensor& ids, const std::vector<int>& layers,
                        const torch::Tensor& documents) override {
    ++questions;
    return asked_->outputs(ids, layers, documents);
  }
  const arch::DecoderSpec& spec() const override { return asked_->spec(); }
  int questions = 0;

 private:
  std::shared_ptr<Teacher> asked_;
};

TEST(RememberingTeacher, AsksOnceForWhatFitsAndGivesTheSameAnswer) {
  const auto counting = std::make_shared<CountingTeacher>(make_teacher());
  const int64_t bytes_of_a_window = 11 * small_spec().hidden_size * static_cast<int64_t>(sizeof(float));
  RememberingTeacher teacher(counting, 3 * bytes_of_a_window);
  const torch::Tensor ids = random_ids(1, 11, kVocab, 1), others = random_ids(1, 11, kVocab, 2);
  const TeacherOutput first = teacher.outputs(ids);
  EXPECT_TRUE(torch::equal(teacher.outputs(ids).final_hidden, first.final_hidden));
  EXPECT_EQ(counting->questions, 1);
  EXPECT_TRUE(torch::equal(teacher.outputs(ids, {1}).hidden.at(1), make_teacher()->outputs(ids, {1}).hidden.at(1)));
  EXPECT_EQ(counting->questions, 2);  // other layers are another question
  teacher.outputs(ids, {1});
  EXPECT_EQ(counting->questions, 2);
  for (int i = 0; i < 2; ++i) teacher.outputs(others);  // the three windows that fit are taken
  EXPECT_EQ(counting->questions, 4);
  teacher.outputs(ids.view({11, 1}));  // the same ids as other windows
  EXPECT_EQ(counting->questions, 5);
}

TEST(DistillObjective, MicroBatchesAddUpToTheBatch) {
  const auto teacher = make_teacher();
  const ObjectiveOptions options{.kl = 1, .hidden_mse = 4, .cross_entropy = 0.5};
  const train::Batch batch = random_batch(4, 13, true);
  const double total = batch.num_supervised();
  model::Decoder student(small_spec(), lively_source(1));
  const auto objective = distill_objective(options, student.spec(), teacher);
  const train::Loss whole = compute(*objective, student, batch, total);
  whole.total.backward();
  const torch::Tensor expected = gradient_vector(student);
  student.zero_grad();
  double sum = 0, hidden = 0;
  for (const auto& [begin, count] : {std::pair{0, 1}, std::pair{1, 2}, std::pair{3, 1}}) {
    const train::Loss loss = compute(*objective, student, rows_of(batch, begin, count), total);
    loss.total.backward();
    sum += loss.total.item<double>();
    hidden += loss.parts.at("hidden_mse");
  }
  EXPECT_NEAR(sum, whole.total.item<double>(), 2e-6 * sum);
  EXPECT_NEAR(hidden, whole.parts.at("hidden_mse"), 2e-6 * hidden);
  EXPECT_LT(relative_distance(gradient_vector(student), expected), 1e-5);
}

TEST(DistillObjective, AStudentThatIsItsTeacherHasNothingToLearn) {
  const auto teacher = make_teacher(1);
  model::Decoder student(small_spec(), lively_source(1));
  const auto objective = distill_objective({.kl = 1, .hidden_mse = 1}, student.spec(), teacher);
  const train::Batch batch = random_batch(2, 9, false);
  const train::Loss loss = compute(*objective, student, batch, 18);
  loss.total.backward();
  EXPECT_NEAR(loss.total.item<double>(), 0, 1e-9);
  EXPECT_LT(gradient_vector(student).abs().max().item<double>(), 1e-6);
  EXPECT_EQ(objective->evaluate(batch, student.forward(batch.ids), student.head_weight()).top1, 18);
}

TEST(DistillObjective, EvaluationGivesSumsAtTemperatureOne) {
  const auto teacher = make_teacher();
  model::Decoder student(small_spec(), lively_source(1));
  const train::Batch batch = random_batch(3, 11, true);
  const double tokens = batch.num_supervised();
  const torch::NoGradGuard no_grad;
  const auto output = student.forward(batch.ids);
  const auto objective = distill_objective({.kl = 0, .cross_entropy = 1, .temperature = 3}, student.spec(), teacher);
  const auto sums = objective->evaluate(batch, output, student.head_weight());
  EXPECT_TRUE(objective->has_teacher());
  EXPECT_EQ(sums.tokens, tokens);
  EXPECT_NEAR(sums.kl / tokens, plain_loss({.kl = 1}, student, *teacher, batch).item<double>(), 1e-5);
  EXPECT_NEAR(sums.cross_entropy / tokens,
              plain_loss({.kl = 0, .cross_entropy = 1}, student, *teacher, batch).item<double>(), 1e-5);
  const auto top = [](const torch::Tensor& hidden, const torch::Tensor& head) {
    return torch::matmul(hidden, head.t()).argmax(-1);
  };
  const torch::Tensor same = top(output.final_hidden, student.head_weight()) ==
                             top(teacher->outputs(batch.ids).final_hidden, teacher->outputs(batch.ids).head);
  EXPECT_EQ(sums.top1, (same.to(torch::kFloat32) * batch.mask).sum().item<double>());
}

TEST(DistillObjective, EvaluationComparesWithTheBaselineWhoeverTeaches) {
  const auto teacher = make_teacher(2), baseline = make_teacher(3);
  model::Decoder student(small_spec(), lively_source(1));
  const train::Batch batch = random_batch(3, 11, true);
  const double tokens = batch.num_supervised();
  const torch::NoGradGuard no_grad;
  const auto objective = distill_objective({.kl = 1}, student.spec(), teacher, baseline);
  EXPECT_NEAR(compute(*objective, student, batch, tokens).total.item<double>(),
              plain_loss({.kl = 1}, student, *teacher, batch).item<double>(), 1e-5);
  EXPECT_NEAR(objective->evaluate(batch, student.forward(batch.ids), student.head_weight()).kl / tokens,
              plain_loss({.kl = 1}, student, *baseline, batch).item<double>(), 1e-5);
}

TEST(DistillObjective, EvaluationRunsTheBaselineOnceForTheSameWindows) {
  const auto baseline = make_teacher(3);
  model::Decoder student(small_spec(), lively_source(1));
  const train::Batch batch = random_batch(3, 11, false), other = random_batch(2, 11, false);
  const torch::NoGradGuard no_grad;
  const auto objective = distill_objective({.kl = 1}, student.spec(), baseline);
  const auto kl = [&](const train::Batch& windows) {
    return objective->evaluate(windows, student.forward(windows.ids), student.head_weight()).kl;
  };
  const double before = kl(batch);
  // Only a model that is run again shows that its weights have changed.
  for (const auto& [name, linear] : baseline->decoder().linears()) linear->weight.zero_();
  EXPECT_EQ(kl(batch), before);
  const double damaged = kl(other);
  EXPECT_NE(damaged, distill_objective({.kl = 1}, student.spec(), make_teacher(3))
                         ->evaluate(other, student.forward(other.ids), student.head_weight())
                         .kl);
}

TEST(DistillObjective, ATeacherCastOnceTeachesAsOneCastEachTime) {
  const auto teacher = make_teacher();
  model::Decoder each_time(small_spec(), lively_source(2));
  each_time.compute = torch::kBFloat16;
  teacher->prepare(torch::kCPU, torch::kBFloat16);
  for (const auto& [name, linear] : teacher->decoder().linears())
    EXPECT_EQ(linear->weight.scalar_type(), torch::kBFloat16) << name;
  EXPECT_EQ(teacher->outputs(random_ids(1, 2, kVocab, 1)).head.scalar_type(), torch::kFloat32);
  const torch::NoGradGuard no_grad;
  const torch::Tensor ids = random_batch(2, 9, false).ids;
  EXPECT_TRUE(torch::equal(teacher->outputs(ids).final_hidden, each_time.forward(ids).final_hidden));
}

TEST(DistillObjective, WithoutATeacherItIsCrossEntropy) {
  model::Decoder student(small_spec(), lively_source(1));
  const train::Batch batch = random_batch(2, 9, true);
  const double total = batch.num_supervised();
  const auto objective = distill_objective({.kl = 0, .cross_entropy = 1}, student.spec(), nullptr);
  const auto plain = train::make_cross_entropy();
  EXPECT_FALSE(objective->has_teacher());
  EXPECT_FALSE(plain->has_teacher());
  const train::Loss a = compute(*objective, student, batch, total), b = compute(*plain, student, batch, total);
  EXPECT_EQ(a.total.item<double>(), b.total.item<double>());
  const torch::Tensor logits = testing::all_logits(student, batch.ids);
  const torch::Tensor nll = -logits.log_softmax(-1).gather(2, batch.targets.unsqueeze(2)).squeeze(2);
  EXPECT_NEAR(a.total.item<double>(), ((nll * batch.mask).sum() / total).item<double>(), 1e-5);
  const auto x = objective->evaluate(batch, student.forward(batch.ids), student.head_weight());
  const auto y = plain->evaluate(batch, student.forward(batch.ids), student.head_weight());
  EXPECT_EQ(x.cross_entropy, y.cross_entropy);
  EXPECT_EQ(x.top1, ((logits.argmax(-1) == batch.targets).to(torch::kFloat32) * batch.mask).sum().item<double>());
  EXPECT_EQ(y.top1, x.top1);
}

TEST(DistillObjective, TheTeacherStaysAsItIs) {
  const auto teacher = make_teacher();
  model::Decoder student(small_spec(), lively_source(1));
  const train::Batch batch = random_batch(2, 9, false);
  const torch::Tensor before = teacher->outputs(batch.ids).final_hidden;
  compute(*distill_objective({.kl = 1, .hidden_mse = 1}, student.spec(), teacher), student, batch, 18).total.backward();
  for (const auto& parameter : teacher->decoder().parameters()) EXPECT_FALSE(parameter.grad().defined());
  EXPECT_TRUE(torch::equal(teacher->outputs(batch.ids).final_hidden, before));
}

TEST(DistillObjective, WrongOptionsSaySo) {
  const auto spec = small_spec();
  EXPECT_EQ(error_of([&] { distill_objective({.kl = 0}, spec, make_teacher()); }),
            "objective: all weights are 0; give at least one of kl, reverse_kl, jsd, cakld, hidden_mse, cross_entropy");
  for (const ObjectiveOptions& options :
       {ObjectiveOptions{.kl = 0, .reverse_kl = 1}, ObjectiveOptions{.kl = 0, .jsd = 1},
        ObjectiveOptions{.kl = 0, .cakld = 1, .cross_entropy = 1}})
    EXPECT_NE(error_of([&] { distill_objective(options, spec, nullptr); }).find("need a teacher"), std::string::npos);
  EXPECT_NE(error_of([&] { distill_objective({.kl = 1}, spec, nullptr); }).find("need a teacher"), std::string::npos);
  const auto other = std::make_shared<ModelTeacher>(small_spec(2, 62), lively_source(1));
  EXPECT_EQ(error_of([&] { distill_objective({.kl = 1}, spec, other); }),
            "teacher: its vocabulary has 62 ids, the model's 61; a teacher must share the model's vocabulary");
  const auto wide = std::make_shared<ModelTeacher>(small_spec(2, kVocab, 26), lively_source(1));
  EXPECT_NE(error_of([&] {
              distill_objective({.kl = 1, .hidden_mse = 1}, spec, wide);
            }).find("hidden size is 26, the model's 24"),
            std::string::npos);
  EXPECT_EQ(error_of([&] { distill_objective({.kl = 1}, spec, wide); }), "");
}

TEST(HiddenLayerMap, SpreadsLayersAndEndsAtTheLast) {
  using Pairs = std::vector<std::pair<int, int>>;
  EXPECT_EQ(hidden_layer_map({}, 3, 3), (Pairs{{0, 0}, {1, 1}, {2, 2}}));
  EXPECT_EQ(hidden_layer_map({}, 2, 6), (Pairs{{0, 2}, {1, 5}}));
  EXPECT_EQ(hidden_layer_map({}, 4, 2), (Pairs{{0, 0}, {1, 0}, {2, 1}, {3, 1}}));
  ObjectiveOptions options;
  options.hidden_layers = {"2:5", "0:1"};
  EXPECT_EQ(hidden_layer_map(options, 3, 6), (Pairs{{0, 1}, {2, 5}}));
}

TEST(HiddenLayerMap, WrongPairsSaySo) {
  const auto message = [](const std::vector<std::string>& pairs) {
    return error_of([&] {
      ObjectiveOptions options;
      options.hidden_layers = pairs;
      hidden_layer_map(options, 3, 6);
    });
  };
  EXPECT_EQ(message({"1"}), "objective.hidden_layers: \"1\" is not a pair of layers such as \"0:3\" (student:teacher)");
  EXPECT_EQ(message({"a:1"}),
            "objective.hidden_layers: \"a:1\" is not a pair of layers such as \"0:3\" (student:teacher)");
  EXPECT_EQ(message({"3:1"}), "objective.hidden_layers: \"3:1\": the model has layers 0 to 2");
  EXPECT_EQ(message({"1:6"}), "objective.hidden_layers: \"1:6\": the teacher has layers 0 to 5");
  EXPECT_EQ(message({"1:2", "1:3"}), "objective.hidden_layers: layer 1 of the model appears twice");
}

TEST(HiddenMse, GradientMatchesFiniteDifferences) {
  torch::manual_seed(1);
  const auto f64 = torch::TensorOptions().dtype(torch::kFloat64);
  torch::Tensor student = torch::randn({3, 5, 4}, f64).requires_grad_(true);
  const torch::Tensor teacher = torch::randn({3, 5, 4}, f64),
                      mask = (torch::arange(15) % 4 > 0).to(torch::kFloat32).view({3, 5});
  for (const auto normalize : {HiddenNormalize::window, HiddenNormalize::token, HiddenNormalize::none}) {
    const torch::Tensor gradient = torch::autograd::grad({hidden_mse(student, teacher, mask, normalize)}, {student})[0];
    const torch::Tensor direction = torch::randn_like(student) * 1e-5;
    const auto value = [&](double step) {
      return hidden_mse(student.detach() + step * direction, teacher, mask, normalize).item<double>();
    };
    const double expected = (gradient * direction).sum().item<double>();
    EXPECT_NEAR((value(1) - value(-1)) / 2, expected, 1e-8 * std::abs(expected));
  }
}

TEST(HiddenMse, AWindowWithoutSupervisionCountsNothing) {
  torch::Tensor student = torch::randn({2, 5, 4}).requires_grad_(true);
  const torch::Tensor teacher = torch::randn({2, 5, 4});
  torch::Tensor mask = torch::ones({2, 5});
  mask[1].zero_();
  const torch::Tensor value = hidden_mse(student, teacher, mask, HiddenNormalize::window);
  value.backward();
  EXPECT_FLOAT_EQ(
      value.item<float>(),
      hidden_mse(student.narrow(0, 0, 1), teacher.narrow(0, 0, 1), {}, HiddenNormalize::window).item<float>());
  EXPECT_EQ(student.grad()[1].abs().max().item<float>(), 0.0f);
}

TEST(HiddenMse, ATokenOfHugeStatesCountsLikeTheOthersWhereEachIsNormalisedAlone) {
  const torch::Tensor teacher = torch::randn({1, 6, 4}), student = teacher + torch::randn({1, 6, 4});
  torch::Tensor huge = teacher.clone(), far = student.clone();
  huge[0][0] *= 1000;
  far[0][0] = huge[0][0] + 1000 * (student[0][0] - teacher[0][0]);
  const auto distance = [](const torch::Tensor& s, const torch::Tensor& t, HiddenNormalize normalize) {
    return hidden_mse(s, t, {}, normalize).item<double>();
  };
  const double alike = distance(student, teacher, HiddenNormalize::token);
  EXPECT_NEAR(distance(far, huge, HiddenNormalize::token), alike, 1e-4 * alike);
  EXPECT_GT(
      std::abs(distance(far, huge, HiddenNormalize::window) - distance(student, teacher, HiddenNormalize::window)),
      1e-2);
  torch::Tensor nothing = teacher.clone();
  nothing[0][2].zero_();
  EXPECT_TRUE(std::isfinite(distance(student, nothing, HiddenNormalize::token)));
}

TEST(DistillConfigs, TheirObjectivesAreUnderstood) {
  size_t found = 0;
  for (const auto& entry : testing::fs::recursive_directory_iterator(testing::source_dir() / "configs/distill")) {
    const ConfigValue tree = parse_yaml_file(entry.path());
    ASSERT_NE(tree.find("objective"), nullptr) << entry.path();
    EXPECT_GT(read_config<ObjectiveOptions>(*tree.find("objective")).hidden_mse, 0.0);
    ++found;
  }
  EXPECT_EQ(found, 1U);
}

TEST(DistillConfigs, ATypoNamesTheNearestKey) {
  const std::string message =
      error_of([] { read_config<ObjectiveOptions>(parse_yaml_text("{hiden_mse: 4}", "job.yaml")); });
  EXPECT_NE(message.find("hidden_mse"), std::string::npos) << message;
}

}  // namespace
}  // namespace crumb::distill
