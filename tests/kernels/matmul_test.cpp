#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include "core/common/thread_pool.h"
#include "kernels/rounding.h"
#include "tests/kernels/isa_cases.h"

namespace crumb::kernels {
namespace {

using testing::normal_values;

class Matmul : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Paths, Matmul, ::testing::ValuesIn(testing::isas()), testing::isa_label);

struct Shape {
  int64_t tokens, rows, cols;
};
// Every tile and remainder of tokens, of rows and of the blocks over cols.
constexpr Shape kShapes[] = {{1, 1, 1},    {2, 5, 3},    {3, 16, 8},    {5, 17, 255},  {6, 31, 256},  {7, 32, 257},
                             {11, 33, 16}, {12, 64, 17}, {13, 48, 512}, {25, 65, 600}, {130, 96, 33}, {4, 129, 1030}};

std::vector<float> product(Isa isa, Shape shape, bool has_bias, Executor& executor) {
  const auto [tokens, rows, cols] = shape;
  const auto x = normal_values(tokens * cols, 1), w = normal_values(rows * cols, 2), bias = normal_values(rows, 3);
  std::vector<float> y(static_cast<size_t>(tokens * rows), NAN);
  matmul({x.data(), cols, tokens, w.data(), has_bias ? bias.data() : nullptr, rows, cols, y.data(), rows}, executor,
         isa);
  return y;
}

TEST_P(Matmul, IsTheSumOfProductsInDoublePrecision) {
  ThreadPool pool(2);
  for (const auto& shape : kShapes) {
    const auto [tokens, rows, cols] = shape;
    const auto x = normal_values(tokens * cols, 1), w = normal_values(rows * cols, 2), bias = normal_values(rows, 3);
    for (const bool has_bias : {false, true}) {
      const auto y = product(GetParam(), shape, has_bias, pool);
      for (int64_t i = 0; i < tokens * rows; ++i) {
        double sum = has_bias ? bias[static_cast<size_t>(i % rows)] : 0.0, magnitude = std::abs(sum);
        for (int64_t k = 0; k < cols; ++k) {
          const double term = static_cast<double>(x[static_cast<size_t>(i / rows * cols + k)]) *
                              w[static_cast<size_t>(i % rows * cols + k)];
          sum += term;
          magnitude += std::abs(term);
        }
        // A chain of at most 256 products and one sum for each such block.
        const double roundings = static_cast<double>(std::min<int64_t>(cols, 256) + cols / 256 + 2);
        ASSERT_NEAR(y[static_cast<size_t>(i)], sum, roundings * 0x1.0p-24 * magnitude)
            << tokens << " tokens, " << rows << " rows, " << cols << " cols, value " << i;
      }
    }
  }
}

TEST_P(Matmul, GivesTheSameBitsForAnyNumberOfThreads) {
  ThreadPool pool(3);
  const Shape shape{13, 1000, 600};
  EXPECT_EQ(product(GetParam(), shape, true, pool), product(GetParam(), shape, true, serial_executor()));
}

TEST_P(Matmul, ATokenAmongOthersEqualsTheTokenAlone) {
  const int64_t tokens = 31, rows = 67, cols = 700;
  const auto x = normal_values(tokens * cols, 1), w = normal_values(rows * cols, 2), bias = normal_values(rows, 3);
  std::vector<float> together(static_cast<size_t>(tokens * rows)), alone(static_cast<size_t>(rows));
  matmul({x.data(), cols, tokens, w.data(), bias.data(), rows, cols, together.data(), rows}, serial_executor(),
         GetParam());
  for (int64_t t = 0; t < tokens; ++t) {
    matmul({x.data() + t * cols, cols, 1, w.data(), bias.data(), rows, cols, alone.data(), rows}, serial_executor(),
           GetParam());
    for (int64_t r = 0; r < rows; ++r)
      ASSERT_EQ(alone[static_cast<size_t>(r)], together[static_cast<size_t>(t * rows + r)]) << "token " << t;
  }
}

TEST_P(Matmul, PackedWeightsGiveTheSameBits) {
  for (const auto& [tokens, rows, cols] : kShapes) {
    const auto x = normal_values(tokens * cols, 1), w = normal_values(rows * cols, 2);
    std::vector<float> packed(static_cast<size_t>(packed_size(rows, cols))), y(static_cast<size_t>(tokens * rows));
    pack_weights(w.data(), rows, cols, packed.data(), GetParam());
    matmul({x.data(), cols, tokens, packed.data(), nullptr, rows, cols, y.data(), rows, true}, serial_executor(),
           GetParam());
    EXPECT_EQ(y, product(GetParam(), {tokens, rows, cols}, false, serial_executor()));
  }
}

TEST_P(Matmul, WeightsThatAreF16GiveTheSameBitsHeldInF16) {
  for (const auto& [tokens, rows, cols] : kShapes) {
    const auto x = normal_values(tokens * cols, 1), bias = normal_values(rows, 3);
    auto w = normal_values(rows * cols, 2);
    for (float& v : w) v = from_f16(to_f16(v));
    std::vector<Half> packed(static_cast<size_t>(packed_size(rows, cols)));
    pack_weights_f16(w.data(), rows, cols, packed.data(), GetParam());
    std::vector<float> y(static_cast<size_t>(tokens * rows), NAN), expected = y, row(static_cast<size_t>(cols));
    MatmulArguments product{x.data(), cols, tokens, w.data(), bias.data(), rows, cols, expected.data(), rows};
    matmul(product, serial_executor(), GetParam());
    product.w = nullptr;
    product.w_f16 = packed.data();
    product.y = y.data();
    matmul(product, serial_executor(), GetParam());
    EXPECT_EQ(y, expected) << tokens << " tokens, " << rows << " rows, " << cols << " cols";
    read_packed_row(packed.data(), cols, rows - 1, row.data(), GetParam());
    EXPECT_TRUE(std::equal(row.begin(), row.end(), w.end() - cols));
  }
}

TEST_P(Matmul, WeightsThatAreBf16GiveTheSameBitsHeldInBf16) {
  for (const auto& [tokens, rows, cols] : kShapes) {
    const auto x = normal_values(tokens * cols, 1), bias = normal_values(rows, 3);
    auto w = normal_values(rows * cols, 2);
    for (float& v : w) v = std::bit_cast<float>(std::bit_cast<uint32_t>(v) & 0xFFFF0000u);
    std::vector<Bf16> packed(static_cast<size_t>(packed_size(rows, cols)));
    pack_weights_bf16(w.data(), rows, cols, packed.data(), GetParam());
    std::vector<float> y(static_cast<size_t>(tokens * rows), NAN), expected = y;
    MatmulArguments product{x.data(), cols, tokens, w.data(), bias.data(), rows, cols, expected.data(), rows};
    matmul(product, serial_executor(), GetParam());
    product.w = nullptr;
    product.w_bf16 = packed.data();
    product.y = y.data();
    matmul(product, serial_executor(), GetParam());
    EXPECT_EQ(y, expected) << tokens << " tokens, " << rows << " rows, " << cols << " cols";
  }
}

std::vector<float> bf16_values(std::vector<float> x) {
  for (float& v : x) {
    Bf16 rounded{};
    round_to_bf16(&v, 1, &rounded, Isa::reference);
    v = widened(rounded);
  }
  return x;
}

struct Bf16Product {
  std::vector<float> w, bias;
  std::vector<Bf16> packed;
  Shape shape;
  Isa isa;

  Bf16Product(Shape of, Isa on)
      : w(bf16_values(normal_values(of.rows * of.cols, 2))),
        bias(normal_values(of.rows, 3)),
        packed(static_cast<size_t>(packed_size(of.rows, of.cols))),
        shape(of),
        isa(on) {
    pack_weights_bf16(w.data(), of.rows, of.cols, packed.data(), isa);
  }
  std::vector<float> of(const float* x, int64_t tokens, Executor& executor) const {
    std::vector<float> y(static_cast<size_t>(tokens * shape.rows), NAN);
    MatmulArguments product{x,          shape.cols, tokens,     nullptr, bias.data(),  shape.rows,
                            shape.cols, y.data(),   shape.rows, true,    packed.data()};
    matmul_of_bf16(product, executor, isa);
    return y;
  }
};

TEST_P(Matmul, OfBf16IsTheSumOfProductsOfRoundedActivations) {
  ThreadPool pool(2);
  for (const auto& shape : kShapes) {
    const auto [tokens, rows, cols] = shape;
    const Bf16Product product(shape, GetParam());
    const auto x = normal_values(tokens * cols, 1), rounded = bf16_values(x);
    const auto y = product.of(x.data(), tokens, pool);
    for (int64_t i = 0; i < tokens * rows; ++i) {
      double sum = product.bias[static_cast<size_t>(i % rows)], magnitude = std::abs(sum);
      for (int64_t k = 0; k < cols; ++k) {
        const double term = static_cast<double>(rounded[static_cast<size_t>(i / rows * cols + k)]) *
                            product.w[static_cast<size_t>(i % rows * cols + k)];
        sum += term;
        magnitude += std::abs(term);
      }
      const double roundings = static_cast<double>(std::min<int64_t>(cols, 256) + cols / 256 + 2);
      ASSERT_NEAR(y[static_cast<size_t>(i)], sum, roundings * 0x1.0p-24 * magnitude)
          << tokens << " tokens, " << rows << " rows, " << cols << " cols, value " << i;
    }
  }
}

TEST_P(Matmul, OfBf16ATokenAmongOthersEqualsTheTokenAlone) {
  ThreadPool pool(3);
  const Bf16Product product({31, 167, 701}, GetParam());
  const auto x = normal_values(31 * 701, 1);
  const auto together = product.of(x.data(), 31, pool);
  for (int64_t t = 0; t < 31; ++t) {
    const auto alone = product.of(x.data() + t * 701, 1, serial_executor());
    ASSERT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + t * 167)) << "token " << t;
  }
}

TEST_P(Matmul, OfBf16StridesLeaveWhatLiesBetween) {
  const std::vector<float> x{1, 2, -1, 3, 4, -1}, w{1, 1, 1, 0};
  std::vector<Bf16> packed(static_cast<size_t>(packed_size(2, 2)));
  pack_weights_bf16(w.data(), 2, 2, packed.data(), GetParam());
  std::vector<float> y(6, 7.0f);
  matmul_of_bf16({x.data(), 3, 2, nullptr, nullptr, 2, 2, y.data(), 3, true, packed.data()}, serial_executor(),
                 GetParam());
  EXPECT_EQ(y, (std::vector<float>{3, 1, 7, 7, 3, 7}));
}

TEST_P(Matmul, StridesLeaveWhatLiesBetween) {
  const std::vector<float> x{1, 2, -1, 3, 4, -1}, w{1, 1, 1, 0};
  std::vector<float> y(6, 7.0f);
  matmul({x.data(), 3, 2, w.data(), nullptr, 2, 2, y.data(), 3}, serial_executor(), GetParam());
  EXPECT_EQ(y, (std::vector<float>{3, 1, 7, 7, 3, 7}));
}

}  // namespace
}  // namespace crumb::kernels
