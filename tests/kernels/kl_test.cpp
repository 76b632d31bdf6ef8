#include "kernels/kl.h"

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
  LogitLossWeights weights;
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
    out.teacher[i] = out.student[i] + static_cast<float>(0.3 * rng.normal(2 * i + 1));
  }
  for (int64_t r = 0; r < c.rows; ++r) {
    out.weights.push_back(0.25f + 0.5f * static_cast<float>(r));
    out.targets.push_back(
        static_cast<int64_t>(rng.below(static_cast<uint64_t>(1000000 + r), static_cast<uint64_t>(c.vocab))));
  }
  return out;
}

class LogitLoss : public ::testing::TestWithParam<std::tuple<Case, Isa>> {};

TEST_P(LogitLoss, MatchesPlainLoopsInDouble) {
  const auto [c, isa] = GetParam();
  Rows rows = random_rows(c);
  std::vector<double> student(rows.student.begin(), rows.student.end()),
      teacher(rows.teacher.begin(), rows.teacher.end());
  const std::vector<double> weights(rows.weights.begin(), rows.weights.end());
  std::vector<LogitLossRow> expected(rows.weights.size()), losses(rows.weights.size());
  reference::logit_loss(student.data(), teacher.data(), rows.targets.data(), weights.data(), c.rows, c.vocab, c.weights,
                        expected.data());
  logit_loss(rows.student.data(), rows.teacher.data(), rows.targets.data(), rows.weights.data(), c.rows, c.vocab,
             c.weights, losses.data(), serial_executor(), isa);
  // Float logits of size x carry an error of x * 2^-24 into exp; a few such errors add up.
  const double logit_error = (6 * c.spread + 2) / c.weights.temperature * 1.2e-7;
  for (size_t r = 0; r < losses.size(); ++r) {
    EXPECT_NEAR(losses[r].kl, expected[r].kl,
                4 * logit_error * std::max(1.0, c.weights.temperature * c.weights.temperature))
        << "row " << r;
    EXPECT_NEAR(losses[r].cross_entropy, expected[r].cross_entropy, 4 * logit_error) << "row " << r;
  }
  const double scale = rows.weights.back() * (c.weights.kl * c.weights.temperature + c.weights.cross_entropy);
  for (size_t i = 0; i < student.size(); ++i)
    ASSERT_NEAR(rows.student[i], student[i], 4 * logit_error * scale) << "value " << i;
}

constexpr LogitLossWeights kKl{1.0, 0.0, 1.0}, kCe{0.0, 1.0, 1.0}, kBoth{0.7, 0.4, 1.0}, kWarm{1.0, 0.0, 2.5},
    kWarmBoth{0.7, 0.4, 2.5};
INSTANTIATE_TEST_SUITE_P(SizesAndWeights, LogitLoss,
                         ::testing::Combine(::testing::Values(Case{2, 1, 1, kBoth}, Case{3, 7, 2, kKl},
                                                              Case{3, 8, 2, kCe}, Case{3, 9, 2, kWarmBoth},
                                                              Case{2, 511, 3, kWarm}, Case{2, 513, 3, kBoth},
                                                              Case{4, 4096, 3, kKl}, Case{2, 4099, 30, kCe},
                                                              Case{2, 4099, 30, kWarmBoth}, Case{1, 128256, 3, kBoth}),
                                            ::testing::ValuesIn(testing::isas())));

TEST(LogitLossRows, GradientOfARowSumsToZero) {  // adding a constant to all logits changes nothing
  const Case c{5, 1003, 4, kBoth};
  Rows rows = random_rows(c);
  std::vector<LogitLossRow> losses(5);
  logit_loss(rows.student.data(), rows.teacher.data(), rows.targets.data(), rows.weights.data(), 5, 1003, kBoth,
             losses.data(), serial_executor());
  for (int64_t r = 0; r < 5; ++r) {
    double sum = 0, absolute = 0;
    for (int64_t i = 0; i < 1003; ++i) {
      sum += rows.student[static_cast<size_t>(r * 1003 + i)];
      absolute += std::abs(rows.student[static_cast<size_t>(r * 1003 + i)]);
    }
    EXPECT_NEAR(sum, 0, 1e-6 * absolute);
    EXPECT_GT(absolute, 0.01);
  }
}

TEST(LogitLossRows, ARowDoesNotDependOnOthersOrThreads) {
  const Case c{9, 777, 3, kBoth};
  Rows together = random_rows(c), alone = together;
  std::vector<LogitLossRow> losses(9), single(1);
  ThreadPool pool(3);
  logit_loss(together.student.data(), together.teacher.data(), together.targets.data(), together.weights.data(), 9, 777,
             kBoth, losses.data(), pool);
  for (size_t r = 0; r < 9; ++r) {
    float* row = alone.student.data() + r * 777;
    logit_loss(row, alone.teacher.data() + r * 777, &alone.targets[r], &alone.weights[r], 1, 777, kBoth, single.data(),
               serial_executor());
    EXPECT_EQ(single[0].kl, losses[r].kl);
    EXPECT_EQ(single[0].cross_entropy, losses[r].cross_entropy);
    for (size_t i = 0; i < 777; ++i) ASSERT_EQ(row[i], together.student[r * 777 + i]);
  }
}

TEST(LogitLossRows, EqualLogitsHaveNoDivergence) {
  Rows rows = random_rows({2, 300, 5, kKl});
  rows.teacher = rows.student;
  std::vector<LogitLossRow> losses(2);
  logit_loss(rows.student.data(), rows.teacher.data(), rows.targets.data(), rows.weights.data(), 2, 300, kKl,
             losses.data(), serial_executor());
  for (const auto& row : losses) EXPECT_NEAR(row.kl, 0, 1e-12);
  for (const float g : rows.student) EXPECT_NEAR(g, 0, 1e-7);  // the rounding of one product of two below 1
}

TEST(LogitLossRows, ANanLogitGivesANanLoss) {
  for (const LogitLossWeights& weights : {kKl, kCe, kBoth, kWarm}) {
    Rows rows = random_rows({1, 40, 1, weights});
    rows.student[17] = std::numeric_limits<float>::quiet_NaN();
    LogitLossRow loss;
    logit_loss(rows.student.data(), rows.teacher.data(), rows.targets.data(), rows.weights.data(), 1, 40, weights,
               &loss, serial_executor());
    EXPECT_TRUE(std::isnan(loss.kl + loss.cross_entropy));
  }
}

class LogitScores : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Paths, LogitScores, ::testing::ValuesIn(testing::isas()), testing::isa_label);

TEST_P(LogitScores, AreThoseOfDoublePrecisionAndFindTheFirstLargest) {
  for (const int64_t vocab : {1001, 1008, 1003}) {
    Rows rows = random_rows({3, vocab, 2, kBoth});
    rows.student[5] = rows.student[900] = 50;
    rows.teacher[static_cast<size_t>(vocab) + 1000] = 60;
    std::vector<double> student(rows.student.begin(), rows.student.end()),
        teacher(rows.teacher.begin(), rows.teacher.end()), same = teacher;
    const std::vector<double> ones(3, 1.0);
    std::vector<LogitLossRow> expected(3), expected_teacher(3);
    reference::logit_loss(student.data(), teacher.data(), rows.targets.data(), ones.data(), 3, vocab, {1, 1, 1},
                          expected.data());
    reference::logit_loss(same.data(), nullptr, rows.targets.data(), ones.data(), 3, vocab, {0, 1, 1},
                          expected_teacher.data());
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
