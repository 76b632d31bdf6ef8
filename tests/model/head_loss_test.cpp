#include "model/head_loss.h"

#include <c10/util/ThreadLocalDebugInfo.h>
#include <cmath>

#include "tests/model/models.h"

namespace crumb::model {
namespace {

using kernels::LogitLossSpec;
using testing::relative_distance;

constexpr int64_t kTokens = 37, kVocab = 53;

LogitLossSpec spec(double kl, double cross_entropy, double temperature) {
  return {.weights = {.kl = kl, .cross_entropy = cross_entropy}, .temperature = temperature};
}

HeadLossInput random_input(torch::ScalarType dtype, bool with_mask) {
  torch::manual_seed(1);
  const auto normal = [&](std::vector<int64_t> shape) { return torch::randn(shape, torch::kFloat64).to(dtype); };
  HeadLossInput in;
  in.hidden = normal({kTokens, 16}).requires_grad_(true);
  in.head = normal({kVocab, 16}).requires_grad_(true);
  in.teacher_hidden = normal({kTokens, 12});
  in.teacher_head = normal({kVocab, 12});
  in.targets = torch::randint(kVocab, {kTokens}, torch::kInt64);
  if (with_mask) in.mask = (torch::arange(kTokens) % 3 > 0).to(torch::kFloat32);
  return in;
}

/// sum of p (log p - log q) over the last dimension.
torch::Tensor divergence(const torch::Tensor& log_p, const torch::Tensor& log_q) {
  return (log_p.exp() * (log_p - log_q)).sum(-1);
}

/// The same loss on all logits at once, by Torch's operations and autograd.
torch::Tensor plain_loss(const HeadLossInput& in, const LogitLossSpec& o, double total) {
  const torch::Tensor student = torch::mm(in.hidden, in.head.t()),
                      teacher = torch::mm(in.teacher_hidden, in.teacher_head.t());
  const torch::Tensor log_p = (teacher / o.temperature).log_softmax(-1),
                      log_q = (student / o.temperature).log_softmax(-1);
  const torch::Tensor log_m = (o.jsd_beta * log_p.exp() + (1 - o.jsd_beta) * log_q.exp()).log();
  const torch::Tensor confidence = log_p.exp().gather(1, in.targets.unsqueeze(1)).squeeze(1);
  const torch::Tensor kl = divergence(log_p, log_q), reverse = divergence(log_q, log_p);
  const torch::Tensor jsd = o.jsd_beta * divergence(log_p, log_m) + (1 - o.jsd_beta) * divergence(log_q, log_m);
  const torch::Tensor cakld = confidence * reverse + (1 - confidence) * kl;
  const torch::Tensor ce = torch::nll_loss(student.log_softmax(-1), in.targets, {}, at::Reduction::None);
  const torch::Tensor mask = in.mask.defined() ? in.mask.to(kl.scalar_type()) : torch::ones_like(kl);
  const auto& w = o.weights;
  const torch::Tensor divergences = w.kl * kl + w.reverse_kl * reverse + w.jsd * jsd + w.cakld * cakld;
  return ((divergences * (o.temperature * o.temperature) + w.cross_entropy * ce) * mask).sum() / total;
}

struct Result {
  double loss;
  torch::Tensor hidden, head;  // gradients
};
Result differentiate(const HeadLossInput& in, const torch::Tensor& loss) {
  const auto grads = torch::autograd::grad({loss}, {in.hidden, in.head});
  return {loss.item<double>(), grads[0], grads[1]};
}

void expect_near(const Result& actual, const Result& expected, double tolerance) {
  EXPECT_NEAR(actual.loss, expected.loss, tolerance * std::abs(expected.loss));
  EXPECT_LT(relative_distance(actual.hidden, expected.hidden), tolerance);
  EXPECT_LT(relative_distance(actual.head, expected.head), tolerance);
}

const std::vector<LogitLossSpec> kSpecs{
    spec(1, 0, 1),     spec(0, 1, 1),
    spec(0.7, 0.4, 1), spec(1, 0, 2),
    spec(0.7, 0.4, 2), {{.reverse_kl = 1}},
    {{.jsd = 1}},      {{.jsd = 0.5, .cross_entropy = 0.2}, 1.5, 0.2},
    {{.cakld = 1}},    {{.kl = 0.3, .reverse_kl = 0.4, .jsd = 0.5, .cakld = 0.6, .cross_entropy = 0.7}, 2, 0.7}};

TEST(HeadLoss, EqualsAutogradOnAllLogits) {
  for (const LogitLossSpec& weights : kSpecs) {
    for (const bool with_mask : {false, true}) {
      const HeadLossInput exact = random_input(torch::kFloat64, with_mask),
                          in = random_input(torch::kFloat32, with_mask);
      const Result expected = differentiate(exact, plain_loss(exact, weights, 29.0));
      expect_near(differentiate(exact, head_loss(exact, weights, 29.0, 10).total), expected, 1e-12);
      expect_near(differentiate(in, head_loss(in, weights, 29.0, 10).total), expected, 3e-6);
    }
  }
}

TEST(HeadLoss, GradientsMatchFiniteDifferences) {
  const LogitLossSpec weights = spec(0.7, 0.4, 2.0);
  const HeadLossInput in = random_input(torch::kFloat64, true);
  const Result analytic = differentiate(in, head_loss(in, weights, 20.0, 8).total);
  for (const bool by_head : {false, true}) {
    torch::Tensor x = (by_head ? in.head : in.hidden).detach();
    const torch::Tensor direction = torch::randn_like(x) * 1e-5;
    const auto value = [&] { return head_loss(in, weights, 20.0, 8).total.item<double>(); };
    x.add_(direction);
    const double above = value();
    x.sub_(direction, 2);
    const double below = value();
    x.add_(direction);
    const double expected = ((by_head ? analytic.head : analytic.hidden) * direction).sum().item<double>();
    EXPECT_NEAR((above - below) / 2, expected, 1e-7 * std::abs(expected));
  }
}

TEST(HeadLoss, PartsAddUpToTheTotal) {
  for (const LogitLossSpec& weights : kSpecs) {
    const HeadLoss loss = head_loss(random_input(torch::kFloat32, true), weights, 20.0);
    double sum = 0;
    for (const auto& [name, value] : kernels::kLossTerms) {
      EXPECT_EQ(loss.terms.*value > 0.1, weights.weights.*value > 0) << name << " " << loss.terms.*value;
      sum += weights.weights.*value * loss.terms.*value;
    }
    EXPECT_NEAR(loss.total.item<double>(), sum, 1e-6 * sum);
  }
}

TEST(HeadLoss, ChunkSizeDoesNotMatter) {
  const HeadLossInput in = random_input(torch::kFloat32, true);
  const Result whole = differentiate(in, head_loss(in, spec(0.7, 0.4, 1), 20.0).total);
  for (const int64_t chunk : {1, 5, 16, 1000})
    expect_near(differentiate(in, head_loss(in, spec(0.7, 0.4, 1), 20.0, chunk).total), whole, 1e-6);
}

TEST(HeadLoss, MaskedPositionsTakeNoPart) {
  const HeadLossInput in = random_input(torch::kFloat32, true);
  const Result result = differentiate(in, head_loss(in, spec(1, 1, 1), 20.0).total);
  const torch::Tensor masked = in.mask == 0;
  EXPECT_EQ(result.hidden.index({masked}).abs().max().item<double>(), 0.0);
  EXPECT_GT(result.hidden.index({masked.logical_not()}).abs().amax(1).min().item<double>(), 0.0);
  HeadLossInput other = in;
  other.targets = torch::where(masked, 0, in.targets);
  EXPECT_EQ(head_loss(other, spec(1, 1, 1), 20.0).total.item<double>(), result.loss);
}

TEST(HeadLoss, NoSupervisedPositionGivesZero) {
  HeadLossInput in = random_input(torch::kFloat32, true);
  in.mask.zero_();
  const Result result = differentiate(in, head_loss(in, spec(1, 1, 1), 20.0).total);
  EXPECT_EQ(result.loss, 0.0);
  EXPECT_EQ(result.hidden.abs().max().item<double>(), 0.0);
}

TEST(HeadLoss, PartsOfABatchAddUpToTheWhole) {
  const HeadLossInput in = random_input(torch::kFloat32, true);
  const Result whole = differentiate(in, head_loss(in, spec(0.7, 0.4, 1), 20.0).total);
  torch::Tensor sum;
  for (const auto& [begin, count] : {std::pair{0, 11}, std::pair{11, 26}}) {
    HeadLossInput part = in;
    for (torch::Tensor* t : {&part.hidden, &part.teacher_hidden, &part.targets, &part.mask})
      *t = t->narrow(0, begin, count);
    const torch::Tensor loss = head_loss(part, spec(0.7, 0.4, 1), 20.0).total;
    sum = sum.defined() ? sum + loss : loss;
  }
  expect_near(differentiate(in, sum), whole, 1e-6);
}

TEST(HeadLoss, IsScaledByWhatFollows) {
  const HeadLossInput in = random_input(torch::kFloat32, false);
  const Result plain = differentiate(in, head_loss(in, spec(1, 0, 1), 37.0).total);
  const Result tripled = differentiate(in, 3 * head_loss(in, spec(1, 0, 1), 37.0).total);
  EXPECT_LT(relative_distance(tripled.hidden, 3 * plain.hidden), 1e-6);
  EXPECT_LT(relative_distance(tripled.head, 3 * plain.head), 1e-6);
}

TEST(HeadLoss, AFrozenHeadGetsNoGradient) {
  HeadLossInput in = random_input(torch::kFloat32, false);
  in.head = in.head.detach();
  head_loss(in, spec(1, 0, 1), 37.0).total.backward();
  EXPECT_TRUE(in.hidden.grad().defined());
  EXPECT_FALSE(in.head.grad().defined());
}

TEST(HeadLoss, Bfloat16ProductsStayNear) {
  const HeadLossInput exact = random_input(torch::kFloat32, false);
  const Result expected = differentiate(exact, head_loss(exact, spec(1, 0.5, 1), 37.0).total);
  HeadLossInput in = exact;
  in.compute = torch::kBFloat16;
  const Result coarse = differentiate(in, head_loss(in, spec(1, 0.5, 1), 37.0).total);
  expect_near(coarse, expected, 0.03);
  EXPECT_FALSE(torch::equal(coarse.hidden, expected.hidden));
  EXPECT_EQ(coarse.hidden.scalar_type(), torch::kFloat32);
}

/// Cosine of the gradients of `hidden` by bfloat16 and by float32 products at a divergence of about 0.02 nats, where
/// quantization-aware training spends its time. Logits have a deviation of 3.
TEST(HeadLoss, Bfloat16KeepsTheDirectionOfASmallDivergence) {
  torch::manual_seed(5);
  constexpr int64_t kRows = 64, kHidden = 256, kWords = 8192;
  HeadLossInput in;
  in.head = torch::randn({kWords, kHidden}) * (3 / std::sqrt(static_cast<double>(kHidden)));
  in.teacher_head = in.head;
  in.teacher_hidden = torch::randn({kRows, kHidden});
  in.hidden = (in.teacher_hidden + 0.066 * torch::randn({kRows, kHidden})).requires_grad_(true);
  in.targets = torch::zeros({kRows}, torch::kInt64);
  const auto gradient = [&](torch::ScalarType compute) {
    in.compute = compute;
    const HeadLoss loss = head_loss(in, spec(1, 0, 1), kRows, 0);
    EXPECT_NEAR(loss.terms.kl, 0.02, 0.004);
    return torch::autograd::grad({loss.total}, {in.hidden})[0].flatten().to(torch::kFloat64);
  };
  const torch::Tensor exact = gradient(torch::kFloat32), near = gradient(torch::kBFloat16);
  EXPECT_FALSE(torch::equal(exact, near));  // the product with the head is still one of bfloat16
  EXPECT_GT((exact.dot(near) / (exact.norm() * near.norm())).item<double>(), 0.999);
}

TEST(HeadScores, EqualPlainSums) {
  const HeadLossInput in = random_input(torch::kFloat32, true);
  const torch::NoGradGuard no_grad;
  const torch::Tensor rows = in.mask.nonzero().squeeze(1);
  const torch::Tensor student = torch::mm(in.hidden, in.head.t()).index_select(0, rows),
                      teacher = torch::mm(in.teacher_hidden, in.teacher_head.t()).index_select(0, rows);
  const torch::Tensor targets = in.targets.index_select(0, rows);
  const HeadScores scores = head_scores(in, 7);
  EXPECT_EQ(scores.tokens, static_cast<double>(rows.numel()));
  EXPECT_NEAR(scores.kl, plain_loss(in, spec(1, 0, 1), 1.0).item<double>(), 1e-5 * scores.kl);
  EXPECT_NEAR(scores.cross_entropy, plain_loss(in, spec(0, 1, 1), 1.0).item<double>(), 1e-5 * scores.cross_entropy);
  EXPECT_EQ(scores.same_top, (student.argmax(1) == teacher.argmax(1)).sum().item<double>());
  EXPECT_EQ(scores.top_is_target, (student.argmax(1) == targets).sum().item<double>());
}

/// Counts the bytes Torch's allocator holds for this thread.
class AllocationMeter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device) override {
    held_ += bytes;
    peak_ = std::max(peak_, held_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t peak() const { return peak_; }

 private:
  int64_t held_ = 0, peak_ = 0;
};

TEST(HeadLoss, LogitsOfAllTokensNeverExist) {
  constexpr int64_t tokens = 2048, vocab = 20000, width = 8, chunk = 64;
  HeadLossInput in;
  in.hidden = torch::randn({tokens, width}).requires_grad_(true);
  in.head = torch::randn({vocab, width}).requires_grad_(true);
  in.teacher_hidden = torch::randn({tokens, width});
  in.teacher_head = torch::randn({vocab, width});
  in.targets = torch::zeros({tokens}, torch::kInt64);
  const auto meter = std::make_shared<AllocationMeter>();
  {
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
    head_loss(in, spec(1, 1, 1), tokens, chunk).total.backward();
  }
  const int64_t chunks_logits = 2 * chunk * vocab * 4;  // student and teacher
  EXPECT_GE(meter->peak(), chunks_logits);              // the meter works
  EXPECT_LE(meter->peak(), chunks_logits + (8 << 20)) << "all logits would be " << tokens * vocab * 4;
}

}  // namespace
}  // namespace crumb::model
