#include "eval/paired.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "eval/python_random.h"

namespace crumb::eval {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::Pointwise;

/// The probabilities of a fair coin by Pascal's triangle.
double plain_mcnemar(int64_t lost, int64_t gained) {
  std::vector<double> row{1};
  for (int64_t n = 0; n < lost + gained; ++n) {
    std::vector<double> next(row.size() + 1, 0);
    for (size_t k = 0; k < row.size(); ++k) {
      next[k] += row[k] / 2;
      next[k + 1] += row[k] / 2;
    }
    row = next;
  }
  double tail = 0;
  for (int64_t k = 0; k <= std::min(lost, gained); ++k) tail += row[static_cast<size_t>(k)];
  return std::min(1.0, 2 * tail);
}

TEST(McNemar, IsTheExactTestOfACoin) {
  for (int64_t lost = 0; lost <= 30; ++lost) {
    for (int64_t gained = 0; gained <= 30; ++gained)
      EXPECT_NEAR(mcnemar_exact(lost, gained), plain_mcnemar(lost, gained), 1e-12) << lost << " " << gained;
  }
  // scipy.stats.binomtest(k, n, 0.5).pvalue of SciPy 1.17.1.
  EXPECT_NEAR(mcnemar_exact(10, 3), 0.09228515625, 1e-14);
  EXPECT_NEAR(mcnemar_exact(120, 80), 0.0056851559967503055, 1e-14);
  EXPECT_NEAR(mcnemar_exact(1500, 1300), 0.00016841162264376235, 1e-14);
}

TEST(NormalTest, IsTwoSided) {
  EXPECT_NEAR(*normal_test({3.4, 2.0}), 0.08913092551708608, 1e-15);  // 2 * scipy.stats.norm.sf(1.7)
  EXPECT_EQ(normal_test({-3.4, 2.0}), normal_test({3.4, 2.0}));
  EXPECT_EQ(normal_test({0.0, 0.0}), 1.0);
  EXPECT_EQ(normal_test({0.1, 0.0}), 0.0);
  EXPECT_FALSE(normal_test({0.1, std::nullopt}).has_value());
}

// By hand: the smallest p times 4, the next times 3, ... and none below the one before.
TEST(Holm, AdjustsForAllThatAreTested) {
  EXPECT_THAT(holm({0.01, 0.04, 0.03, 0.005}), Pointwise(DoubleNear(1e-15), {0.03, 0.06, 0.06, 0.02}));
  EXPECT_THAT(holm({0.5, 0.6}), ElementsAre(1.0, 1.0));
  EXPECT_THAT(holm({0.2}), ElementsAre(0.2));
  EXPECT_TRUE(holm({}).empty());
}

TEST(Moments, GiveTheStandardErrorOfAMean) {
  Moments moments;
  for (const double x : {1.0, 4.0, 2.0, 8.0, 5.0, 7.5}) moments.add(x);
  EXPECT_NEAR(moments.estimate().value, 4.583333333333333, 1e-15);
  EXPECT_NEAR(*moments.estimate().standard_error, 1.1577036657874837, 1e-15);  // scipy.stats.sem
  // Of zeros and ones it is sqrt(p (1 - p) / (n - 1)).
  Moments hits;
  for (int i = 0; i < 50; ++i) hits.add(i % 5 == 0 ? 1 : 0);
  EXPECT_NEAR(*hits.estimate().standard_error, std::sqrt(0.2 * 0.8 / 49), 1e-15);
  Moments one;
  one.add(3);
  EXPECT_FALSE(one.estimate().standard_error.has_value());
}

TEST(Verdict, IsSaidOnlyWhenSignificant) {
  EXPECT_EQ(verdict(0.02, 0.2), "no significant change");
  EXPECT_EQ(verdict(0.02, 0.04), "worse");
  EXPECT_EQ(verdict(-0.02, 0.04), "better");
}

// Made by CPython 3.11: r = random.Random(1234); three of r.getrandbits(32), then r.sample(range(n), k).
TEST(PythonRandom, DrawsWhatPythonDraws) {
  PythonRandom random(1234);
  EXPECT_EQ(random.bits(), 4150886329u);
  EXPECT_EQ(random.bits(), 3342196574u);
  EXPECT_EQ(random.bits(), 1892932127u);
  EXPECT_THAT(random.sample(10, 3), ElementsAre(1, 0, 9));
  EXPECT_THAT(random.sample(5000, 5), ElementsAre(4769, 286, 687, 806, 2905));
  EXPECT_THAT(random.sample(50, 8), ElementsAre(15, 1, 48, 47, 22, 41, 39, 30));
  EXPECT_THAT(random.sample(300, 10), ElementsAre(237, 76, 46, 93, 58, 7, 257, 249, 127, 33));
  PythonRandom other(7);
  for (int i = 0; i < 1000; ++i) other.bits();  // past the first block of 624
  EXPECT_EQ(other.bits(), 3192093819u);
  EXPECT_THAT(other.sample(7473, 5), ElementsAre(5676, 2493, 5088, 4651, 1093));
}

}  // namespace
}  // namespace crumb::eval
