#include "ptq/hadamard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

namespace crumb::ptq {
namespace {

/// Q [n, n]: its rows are what the unit vectors become.
std::vector<double> dense(const RandomHadamard& q) {
  const int64_t n = q.size();
  std::vector<double> matrix(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i) matrix[static_cast<size_t>(i * n + i)] = 1;
  q.rotate_rows(matrix.data(), n, n);
  return matrix;
}

std::vector<double> random_matrix(int64_t rows, int64_t cols) {
  const Rng rng(5, hash_name("matrix"));
  std::vector<double> x;
  for (int64_t i = 0; i < rows * cols; ++i) x.push_back(rng.normal(static_cast<uint64_t>(i)));
  return x;
}

class HadamardOfSize : public ::testing::TestWithParam<int> {};
/// Powers of two; those of Paley's first and second construction; those that no prime fits; odd ones and their doubles.
INSTANTIATE_TEST_SUITE_P(Hadamard, HadamardOfSize,
                         ::testing::Values(1, 2, 4, 64, 128, 12, 20, 48, 60, 288, 28, 36, 104, 72, 224, 576, 92, 100, 3,
                                           5, 7, 9, 18, 30, 75, 77));

TEST_P(HadamardOfSize, IsOrthogonal) {
  const int64_t n = GetParam();
  const auto q = dense(RandomHadamard(n, Rng(7, 3)));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k <= i; ++k) {
      double product = 0;
      for (int64_t j = 0; j < n; ++j) product += q[static_cast<size_t>(i * n + j)] * q[static_cast<size_t>(k * n + j)];
      ASSERT_NEAR(product, i == k ? 1.0 : 0.0, 1e-12) << i << " " << k;
    }
  }
}

TEST_P(HadamardOfSize, HasNoLargeEntry) {
  const int64_t n = GetParam();
  const bool is_hadamard = n < 3 || (n % 4 == 0 && n != 92 && n != 100);  // 92 and 100: no prime fits
  const double even = 1 / std::sqrt(static_cast<double>(n));
  for (const double entry : dense(RandomHadamard(n, Rng(7, 3)))) {
    if (is_hadamard) {
      ASSERT_NEAR(std::abs(entry), even, 1e-12);
    } else {
      ASSERT_LE(std::abs(entry), std::sqrt(2.0) * even + 1e-12);
    }
  }
}

TEST_P(HadamardOfSize, MovesColumnsAsRowsAndEachAsIfItWereAlone) {
  const int64_t n = GetParam(), vectors = 19, stride = n + 3;
  const RandomHadamard q(n, Rng(7, 3));
  const auto x = random_matrix(vectors, stride);
  auto rows = x;
  q.rotate_rows(rows.data(), vectors, stride);
  std::vector<double> columns(static_cast<size_t>(n * vectors));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t v = 0; v < vectors; ++v)
      columns[static_cast<size_t>(i * vectors + v)] = x[static_cast<size_t>(v * stride + i)];
  q.rotate_columns(columns.data(), vectors);
  for (int64_t v = 0; v < vectors; ++v) {
    std::vector<double> alone(x.begin() + v * stride, x.begin() + v * stride + n);
    q.rotate_rows(alone.data(), 1, n);
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(rows[static_cast<size_t>(v * stride + i)], alone[static_cast<size_t>(i)]);
      ASSERT_EQ(columns[static_cast<size_t>(i * vectors + v)], alone[static_cast<size_t>(i)]);
    }
    for (int64_t i = n; i < stride; ++i)  // what lies between the rows is not touched
      ASSERT_EQ(rows[static_cast<size_t>(v * stride + i)], x[static_cast<size_t>(v * stride + i)]);
  }
}

TEST(Hadamard, OfAPowerOfTwoIsSylvestersWithRandomSigns) {
  constexpr unsigned n = 32;
  const auto q = dense(RandomHadamard(n, Rng(7, 3)));
  for (unsigned i = 0; i < n; ++i) {
    for (unsigned j = 0; j < n; ++j)
      ASSERT_NEAR(q[i * n] * q[i * n + j] * n, std::popcount(i & j) % 2 == 0 ? 1 : -1, 1e-12);
  }
}

TEST(Hadamard, SignsAreThoseOfTheSeedAndTheStream) {
  const auto signs = [](uint64_t seed, uint64_t stream) {
    constexpr int64_t n = 576;
    const auto q = dense(RandomHadamard(n, Rng(seed, stream)));
    std::vector<bool> negative;
    for (int64_t i = 0; i < n; ++i) negative.push_back(q[static_cast<size_t>(i * n)] < 0);
    return negative;
  };
  const auto some = signs(0, 1);
  EXPECT_EQ(some, signs(0, 1));
  EXPECT_NE(some, signs(1, 1));
  EXPECT_NE(some, signs(0, 2));
  const auto count = std::count(some.begin(), some.end(), true);  // 288 +- 12
  EXPECT_GT(count, 288 - 60);
  EXPECT_LT(count, 288 + 60);
}

}  // namespace
}  // namespace crumb::ptq
