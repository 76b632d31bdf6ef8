#include "runtime/linear.h"

#include <cmath>

#include "core/common/rng.h"
#include "tests/testing/testing.h"

namespace crumb::runtime {
namespace {

std::vector<float> random_values(int64_t count, uint64_t stream) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i)
    values.push_back(static_cast<float>(Rng(1, stream).normal(static_cast<uint64_t>(i))));
  return values;
}

/// |y - reference| <= cols * eps * sum |x||w|, the bound of a float sum in any order.
void expect_product(int64_t tokens, int64_t rows, int64_t cols, bool has_bias, const ParallelFor& parallel_for) {
  const auto weight = random_values(rows * cols, 1), x = random_values(tokens * cols, 2);
  const auto bias = has_bias ? random_values(rows, 3) : std::vector<float>();
  const auto linear = make_dense_linear(weight, rows, cols, bias);
  std::vector<float> y(static_cast<size_t>(tokens * rows), NAN);
  linear->forward(x.data(), tokens, y.data(), parallel_for);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < rows; ++r) {
      double sum = has_bias ? bias[static_cast<size_t>(r)] : 0.0, magnitude = std::abs(sum);
      for (int64_t c = 0; c < cols; ++c) {
        const double product =
            static_cast<double>(x[static_cast<size_t>(t * cols + c)]) * weight[static_cast<size_t>(r * cols + c)];
        sum += product;
        magnitude += std::abs(product);
      }
      const double bound = static_cast<double>(cols + 1) * 0x1.0p-24 * magnitude;
      ASSERT_NEAR(y[static_cast<size_t>(t * rows + r)], sum, bound) << "token " << t << ", row " << r;
    }
  }
}

TEST(DenseLinear, EqualsTheProductInDoublePrecision) {
  ThreadPool pool(3);
  for (const int64_t tokens : {1, 2, 7, 64, 130}) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {5, 3}, {96, 32}, {129, 200}}) {
      expect_product(tokens, rows, cols, tokens % 2 == 0, pool.as_parallel_for());
    }
  }
}

TEST(DenseLinear, ThreadsShareTheRowsOfALargeMatrix) {
  ThreadPool pool(2);
  int64_t pieces = 0;
  const ParallelFor counting = [&](int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
    pieces += n / grain;
    pool.parallel_for(n, grain, body);
  };
  expect_product(64, 512, 128, true, counting);
  EXPECT_GE(pieces, 2);
}

TEST(DenseLinear, AViewUsesTheWeightsInPlace) {
  std::vector<float> weight{1, 2, 3, 4};
  const auto linear = make_dense_linear_view(weight.data(), 2, 2);
  weight[0] = 10;
  const float x[] = {1, 1};
  float y[2];
  linear->forward(x, 1, y, serial_for);
  EXPECT_EQ(y[0], 12.0f);
  EXPECT_EQ(y[1], 7.0f);
}

}  // namespace
}  // namespace crumb::runtime
