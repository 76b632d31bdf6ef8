#include "kernels/divergence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/common/rng.h"
#include "core/common/thread_pool.h"
#include "tests/kernels/isa_cases.h"

namespace crumb::kernels {
namespace {

struct Case {
  int64_t rows, vocab;
  double spread;  // standard deviation of the logits
  LogitLossSpec spec;
  double distance = 0.3;  // standard deviation of the teacher's from the student's
};

struct Rows {
  std::vector<float> student, teacher, weights;
  std::vector<int64_t> targets;
};

Rows random_rows(const Case& c, uint64_t seed = 1) {
  const Rng rng(seed);
  const auto n = static_cast<size_t>(c.rows * c.vocab);
  Rows out{std::vector<float>(n), std::vector<float>(n), {}, {}};
  for (size_t i = 0; i < n; ++i) {
    out.student[i] = static_cast<float>(c.spread * rng.normal(2 * i));
    out.teacher[i] = out.student[i] + static_cast<float>(c.distance * rng.normal(2 * i + 1));
  }
  for (int64_t r = 0; r < c.rows; ++r) {
    out.weights.push_back(0.25f + 0.5f * static_cast<float>(r));
    out.targets.push_back(
        static_cast<int64_t>(rng.below(static_cast<uint64_t>(1000000 + r), static_cast<uint64_t>(c.vocab))));
  }
  return out;
}

/// rows.student becomes the gradient.
std::vector<LossTerms> losses_of(Rows& rows, int64_t vocab, const LogitLossSpec& spec, Isa isa = best_isa(),
                                 Executor& executor = serial_executor()) {
  const auto count = static_cast<int64_t>(rows.targets.size());
  std::vector<LossTerms> terms(rows.targets.size());
  logit_loss(rows.student.data(), needs_teacher(spec.weights) ? rows.teacher.data() : nullptr, rows.targets.data(),
             rows.weights.data(), count, vocab, spec, terms.data(), executor, isa);
  return terms;
}

struct Exact {
  std::vector<double> gradient;
  std::vector<LossTerms> terms;
};
Exact exact_losses(const Rows& rows, int64_t vocab, const LogitLossSpec& spec) {
  Exact exact{{rows.student.begin(), rows.student.end()}, std::vector<LossTerms>(rows.targets.size())};
  const std::vector<double> teacher(rows.teacher.begin(), rows.teacher.end()),
      weights(rows.weights.begin(), rows.weights.end());
  reference::logit_loss(exact.gradient.data(), teacher.data(), rows.targets.data(), weights.data(),
                        static_cast<int64_t>(rows.targets.size()), vocab, spec, exact.terms.data());
  return exact;
}

constexpr LogitLossSpec kKl{{.kl = 1}}, kCe{{.cross_entropy = 1}}, kBoth{{.kl = 0.7, .cross_entropy = 0.4}},
    kWarm{{.kl = 1}, 2.5}, kWarmBoth{{.kl = 0.7, .cross_entropy = 0.4}, 2.5}, kReverse{{.reverse_kl = 1}},
    kWarmReverse{{.kl = 0.5, .reverse_kl = 0.5, .cross_entropy = 0.2}, 2.0}, kJsd{{.jsd = 1}},
    kSkewJsd{{.jsd = 2, .cross_entropy = 0.3}, 1.5, 0.1}, kCakld{{.cakld = 1}}, kWarmCakld{{.cakld = 1.3}, 2.0},
    kAll{{.kl = 0.3, .reverse_kl = 0.4, .jsd = 0.5, .cakld = 0.6, .cross_entropy = 0.7}, 1.3, 0.8};
const LogitLossSpec kSpecs[] = {kKl,          kCe,  kBoth,    kWarm,  kWarmBoth,  kReverse,
                                kWarmReverse, kJsd, kSkewJsd, kCakld, kWarmCakld, kAll};

class LogitLoss : public ::testing::TestWithParam<std::tuple<Case, Isa>> {};

TEST_P(LogitLoss, MatchesPlainLoopsInDouble) {
  const auto [c, isa] = GetParam();
  Rows rows = random_rows(c);
  const Exact exact = exact_losses(rows, c.vocab, c.spec);
  const auto terms = losses_of(rows, c.vocab, c.spec, isa);
  const double t = c.spec.temperature;
  // Float logits of size x carry an error of x * 2^-24 into exp; a few such errors add up. What is multiplied by the
  // distance of the rows carries it that many times.
  const double logit_error = (6 * c.spread + 2) / t * 1.2e-7, far = std::max(1.0, 3 * c.distance / t);
  for (size_t r = 0; r < terms.size(); ++r) {
    for (const auto& [name, value] : kLossTerms)
      EXPECT_NEAR(terms[r].*value, exact.terms[r].*value, 4 * logit_error * std::max(1.0, t * t) * far)
          << name << ", row " << r;
  }
  const LossTerms& w = c.spec.weights;
  const double scale = rows.weights.back() * ((w.kl + w.reverse_kl + w.jsd + w.cakld) * t + w.cross_entropy) * far;
  for (size_t i = 0; i < exact.gradient.size(); ++i)
    ASSERT_NEAR(rows.student[i], exact.gradient[i], 4 * logit_error * scale) << "value " << i;
}

INSTANTIATE_TEST_SUITE_P(
    SizesAndWeights, LogitLoss,
    ::testing::Combine(::testing::Values(Case{2, 1, 1, kBoth}, Case{3, 7, 2, kKl}, Case{3, 8, 2, kCe},
                                         Case{3, 9, 2, kWarmBoth}, Case{2, 511, 3, kWarm}, Case{2, 513, 3, kBoth},
                                         Case{4, 4096, 3, kKl}, Case{2, 4099, 30, kCe}, Case{2, 4099, 30, kWarmBoth},
                                         Case{1, 128256, 3, kBoth}, Case{2, 1, 1, kAll}, Case{3, 7, 2, kReverse},
                                         Case{3, 9, 2, kJsd}, Case{3, 8, 2, kCakld}, Case{2, 513, 3, kWarmReverse},
                                         Case{2, 513, 3, kSkewJsd}, Case{2, 511, 3, kWarmCakld}, Case{4, 4099, 3, kAll},
                                         Case{4, 1003, 3, kReverse, 4}, Case{4, 1003, 3, kJsd, 4},
                                         Case{4, 1003, 3, kCakld, 4}, Case{2, 4099, 30, kAll, 30},
                                         Case{1, 128256, 3, kAll}),
                       ::testing::ValuesIn(testing::isas())));

class LogitLossRows : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Paths, LogitLossRows, ::testing::ValuesIn(testing::isas()), testing::isa_label);

/// P = (3/4, 1/4), Q = (1/2, 1/2), M = (5/8, 3/8); the target is the first.
TEST_P(LogitLossRows, AreWhatTheirFormulasSay) {
  Rows rows{{0, 0}, {std::log(3.0f), 0}, {1}, {0}};
  const LossTerms terms = losses_of(rows, 2, {{1, 1, 1, 1, 1}}, GetParam())[0];
  const double forward = 0.75 * std::log(1.5) + 0.25 * std::log(0.5),
               reverse = 0.5 * std::log(2 / 3.0) + 0.5 * std::log(2.0),
               to_teacher = 0.75 * std::log(6 / 5.0) + 0.25 * std::log(2 / 3.0),
               to_student = 0.5 * std::log(4 / 5.0) + 0.5 * std::log(4 / 3.0);
  EXPECT_NEAR(terms.kl, forward, 1e-6);
  EXPECT_NEAR(terms.reverse_kl, reverse, 1e-6);
  EXPECT_NEAR(terms.jsd, (to_teacher + to_student) / 2, 1e-6);
  EXPECT_NEAR(terms.cakld, 0.75 * reverse + 0.25 * forward, 1e-6);
  EXPECT_NEAR(terms.cross_entropy, std::log(2.0), 1e-6);
}

TEST_P(LogitLossRows, JsdTendsToTheDivergencesAtTheEndsOfBetaAndVanishesThere) {
  const Rows start = random_rows({1, 300, 2, kJsd});
  const auto of = [&](const LogitLossSpec& spec) {
    Rows rows = start;
    const LossTerms terms = losses_of(rows, 300, spec, GetParam())[0];
    return std::pair(terms, rows.student);
  };
  const auto [forward, forward_gradient] = of(kKl);
  const auto [reverse, reverse_gradient] = of(kReverse);
  const auto [low, low_gradient] = of({{.jsd = 1}, 1, 1e-3});
  const auto [high, high_gradient] = of({{.jsd = 1}, 1, 1 - 1e-3});
  EXPECT_NEAR(low.jsd / 1e-3, forward.kl, 0.01 * forward.kl);
  EXPECT_NEAR(high.jsd / 1e-3, reverse.reverse_kl, 0.01 * reverse.reverse_kl);
  for (size_t i = 0; i < 300; ++i) {
    EXPECT_NEAR(low_gradient[i] / 1e-3, forward_gradient[i], 1e-4);
    EXPECT_NEAR(high_gradient[i] / 1e-3, reverse_gradient[i], 1e-4);
  }
  for (const double beta : {0.0, 1.0}) {
    const auto [end, gradient] = of({{.jsd = 1}, 1, beta});
    EXPECT_NEAR(end.jsd, 0, 1e-7);
    for (const float g : gradient) EXPECT_EQ(g, 0.0f);
  }
}

TEST_P(LogitLossRows, GradientOfARowSumsToZero) {  // adding a constant to all logits changes nothing
  for (const LogitLossSpec& spec : kSpecs) {
    Rows rows = random_rows({5, 1003, 4, spec});
    losses_of(rows, 1003, spec, GetParam());
    for (int64_t r = 0; r < 5; ++r) {
      double sum = 0, absolute = 0;
      for (int64_t i = 0; i < 1003; ++i) {
        sum += rows.student[static_cast<size_t>(r * 1003 + i)];
        absolute += std::abs(rows.student[static_cast<size_t>(r * 1003 + i)]);
      }
      EXPECT_NEAR(sum, 0, 2e-6 * absolute);
      EXPECT_GT(absolute, 0.005);
    }
  }
}

TEST_P(LogitLossRows, ARowDoesNotDependOnOthersOrThreads) {
  ThreadPool pool(3);
  for (const LogitLossSpec& spec : {kBoth, kAll}) {
    const Rows start = random_rows({9, 777, 3, spec});
    Rows together = start;
    const auto terms = losses_of(together, 777, spec, GetParam(), pool);
    for (size_t r = 0; r < 9; ++r) {
      const auto row = [&](const std::vector<float>& x) {
        return std::vector<float>(x.begin() + static_cast<std::ptrdiff_t>(r * 777),
                                  x.begin() + static_cast<std::ptrdiff_t>((r + 1) * 777));
      };
      Rows alone{row(start.student), row(start.teacher), {start.weights[r]}, {start.targets[r]}};
      const LossTerms single = losses_of(alone, 777, spec, GetParam())[0];
      for (const auto& [name, value] : kLossTerms) EXPECT_EQ(single.*value, terms[r].*value) << name;
      EXPECT_EQ(alone.student, row(together.student));
    }
  }
}

TEST_P(LogitLossRows, EqualLogitsHaveNoDivergence) {
  for (const LogitLossSpec& spec : {kKl, kWarm, kReverse, kJsd, kCakld, kWarmCakld}) {
    Rows rows = random_rows({2, 300, 5, spec});
    rows.teacher = rows.student;
    for (const auto& row : losses_of(rows, 300, spec, GetParam())) {
      for (const auto& [name, value] : kLossTerms) EXPECT_NEAR(row.*value, 0, 1e-12) << name;
    }
    // The pull of reverse_kl and jsd is a difference that is 0; kl's is one of two products, each rounded.
    const double allowed = GetParam() == Isa::reference                     ? 1e-15
                           : spec.weights.reverse_kl + spec.weights.jsd > 0 ? 0
                                                                            : 1e-7 * spec.temperature;
    for (const float g : rows.student) EXPECT_NEAR(g, 0, allowed);
  }
}

TEST_P(LogitLossRows, AProbabilityThatUnderflowsCountsAsItsLogarithmSays) {
  for (const LogitLossSpec& spec : {kKl, kReverse, kJsd, kCakld, kAll}) {
    for (const bool of_teacher : {true, false}) {
      Rows rows = random_rows({1, 40, 1, spec});
      (of_teacher ? rows.teacher : rows.student)[3] = -1000;
      const Exact exact = exact_losses(rows, 40, spec);
      const LossTerms terms = losses_of(rows, 40, spec, GetParam())[0];
      for (const auto& [name, value] : kLossTerms) {
        const double expected = exact.terms[0].*value;
        EXPECT_NEAR(terms.*value, expected, 1e-5 * std::max(1.0, expected)) << name;
      }
      for (size_t i = 0; i < 40; ++i)
        EXPECT_NEAR(rows.student[i], exact.gradient[i], 1e-5 * std::max(1.0, std::abs(exact.gradient[i])));
    }
  }
}

TEST_P(LogitLossRows, MinusInfinityIsAProbabilityOfZeroWhereThatMakesSense) {
  for (const bool of_teacher : {true, false}) {
    const auto with_infinity = [&] {
      Rows rows = random_rows({1, 40, 1, kJsd});
      (of_teacher ? rows.teacher : rows.student)[3] = -std::numeric_limits<float>::infinity();
      rows.targets[0] = 5;
      return rows;
    };
    for (const LogitLossSpec& spec : {kJsd, kSkewJsd, kCe}) {
      Rows rows = with_infinity();
      const Exact exact = exact_losses(rows, 40, spec);
      const LossTerms terms = losses_of(rows, 40, spec, GetParam())[0];
      EXPECT_NEAR(terms.jsd, exact.terms[0].jsd, 1e-6);
      EXPECT_NEAR(terms.cross_entropy, exact.terms[0].cross_entropy, 1e-6);
      for (size_t i = 0; i < 40; ++i) EXPECT_NEAR(rows.student[i], exact.gradient[i], 2e-6);
    }
    for (const auto& [spec, value] : {std::pair(kKl, &LossTerms::kl), std::pair(kReverse, &LossTerms::reverse_kl),
                                      std::pair(kCakld, &LossTerms::cakld)}) {
      Rows rows = with_infinity();
      EXPECT_FALSE(std::isfinite(losses_of(rows, 40, spec, GetParam())[0].*value));
    }
  }
}

TEST_P(LogitLossRows, ANanLogitGivesANanLoss) {
  for (const LogitLossSpec& spec : kSpecs) {
    Rows rows = random_rows({1, 40, 1, spec});
    rows.student[17] = std::numeric_limits<float>::quiet_NaN();
    const LossTerms terms = losses_of(rows, 40, spec, GetParam())[0];
    for (const auto& [name, value] : kLossTerms) {
      const bool is_computed = spec.weights.*value != 0;
      EXPECT_EQ(std::isnan(terms.*value), is_computed) << name;
    }
  }
}

TEST_P(LogitLossRows, ARowOfWeightZeroIsNotLookedAt) {
  for (const LogitLossSpec& spec : kSpecs) {
    Rows rows = random_rows({3, 40, 1, spec});
    rows.weights[1] = 0;
    Rows damaged = rows;
    damaged.student[50] = damaged.teacher[60] = std::numeric_limits<float>::quiet_NaN();
    const auto terms = losses_of(rows, 40, spec, GetParam()), others = losses_of(damaged, 40, spec, GetParam());
    EXPECT_EQ(damaged.student, rows.student);
    for (size_t i = 40; i < 80; ++i) EXPECT_EQ(rows.student[i], 0.0f);
    for (const auto& [name, value] : kLossTerms) {
      EXPECT_EQ(terms[1].*value, 0.0) << name;
      EXPECT_EQ(others[2].*value, terms[2].*value) << name;
    }
  }
}

TEST(ReferenceLogitLoss, GradientMatchesFiniteDifferences) {
  for (const LogitLossSpec& spec : kSpecs) {
    const Rows rows = random_rows({1, 11, 2, spec});
    const auto loss = [&](size_t changed, double step) {
      std::vector<double> student(rows.student.begin(), rows.student.end()),
          teacher(rows.teacher.begin(), rows.teacher.end());
      student[changed] += step;
      const double weight = 1;
      LossTerms terms;
      reference::logit_loss(student.data(), teacher.data(), rows.targets.data(), &weight, 1, 11, spec, &terms);
      double sum = 0;
      for (const auto& [name, value] : kLossTerms) sum += spec.weights.*value * terms.*value;
      return sum;
    };
    const Exact exact = exact_losses(rows, 11, spec);
    for (size_t i = 0; i < 11; ++i) {
      const double expected = rows.weights[0] * (loss(i, 1e-5) - loss(i, -1e-5)) / 2e-5;
      EXPECT_NEAR(exact.gradient[i], expected, 1e-9) << "value " << i;
    }
  }
}

class LogitScores : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Paths, LogitScores, ::testing::ValuesIn(testing::isas()), testing::isa_label);

TEST_P(LogitScores, AreThoseOfDoublePrecisionAndFindTheFirstLargest) {
  for (const int64_t vocab : {1001, 1008, 1003}) {
    Rows rows = random_rows({3, vocab, 2, kBoth});
    rows.student[5] = rows.student[900] = 50;
    rows.teacher[static_cast<size_t>(vocab) + 1000] = 60;
    const Exact exact = exact_losses(rows, vocab, {{.kl = 1, .cross_entropy = 1}});
    Rows swapped = rows;
    swapped.student = rows.teacher;
    const Exact exact_teacher = exact_losses(swapped, vocab, kCe);
    const auto &expected = exact.terms, &expected_teacher = exact_teacher.terms;
    std::vector<LogitScoreRow> scores(3), alone(3);
    logit_scores(rows.student.data(), rows.teacher.data(), rows.targets.data(), 3, vocab, scores.data(),
                 serial_executor(), GetParam());
    logit_scores(rows.student.data(), nullptr, rows.targets.data(), 3, vocab, alone.data(), serial_executor(),
                 GetParam());
    for (size_t r = 0; r < 3; ++r) {
      EXPECT_NEAR(scores[r].kl, expected[r].kl, 1e-12 * std::max(1.0, expected[r].kl));
      EXPECT_NEAR(scores[r].cross_entropy, expected[r].cross_entropy, 1e-13 * (50 + expected[r].cross_entropy));
      EXPECT_NEAR(scores[r].teacher_cross_entropy, expected_teacher[r].cross_entropy,
                  1e-13 * (60 + expected_teacher[r].cross_entropy));
      EXPECT_EQ(alone[r].cross_entropy, scores[r].cross_entropy);
      EXPECT_EQ(alone[r].student_top, scores[r].student_top);
    }
    EXPECT_EQ(scores[0].student_top, 5);
    EXPECT_EQ(scores[1].teacher_top, 1000);
  }
}

TEST_P(LogitScores, OfEqualRowsHaveNoDivergenceAtAll) {
  const Rows rows = random_rows({1, 777, 4, kBoth});
  LogitScoreRow score;
  logit_scores(rows.student.data(), rows.student.data(), rows.targets.data(), 1, 777, &score, serial_executor(),
               GetParam());
  EXPECT_NEAR(score.kl, 0.0, GetParam() == Isa::reference ? 1e-15 : 0.0);
  EXPECT_EQ(score.cross_entropy, score.teacher_cross_entropy);
}

}  // namespace
}  // namespace crumb::kernels
