// The exponential and the logarithm that the other kernels use, over their whole range.
#include <gtest/gtest.h>

#include <limits>

#include "kernels/isa/table.h"
#include "tests/kernels/isa_cases.h"

namespace crumb::kernels {
namespace {

class Exp : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Paths, Exp, ::testing::ValuesIn(testing::isas()), testing::isa_label);
class Log : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Paths, Log, ::testing::ValuesIn(testing::isas()), testing::isa_label);

/// Every `step`-th float of [low, high], by their bits.
std::vector<float> floats_between(float low, float high, uint32_t step) {
  const auto ordered = [](float x) {
    const auto bits = std::bit_cast<int32_t>(x);
    return bits < 0 ? std::numeric_limits<int32_t>::min() - static_cast<int64_t>(bits) : bits;
  };
  std::vector<float> out;
  for (int64_t i = ordered(low); i <= ordered(high); i += step) {
    const int64_t bits = i < 0 ? std::numeric_limits<int32_t>::min() - i : i;
    out.push_back(std::bit_cast<float>(static_cast<int32_t>(bits)));
  }
  return out;
}

/// The largest |actual - f(x)| in units of the last place of f(x).
double largest_error(const std::vector<float>& x, const std::vector<float>& actual, double (*f)(double)) {
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = f(x[i]);
    const double unit = std::ldexp(1.0, std::ilogb(expected) - 23);
    largest = std::max(largest, std::abs(actual[i] - expected) / unit);
  }
  return largest;
}

TEST_P(Exp, IsWithinOneUnitInTheLastPlaceOverItsWholeRange) {
  // All floats near 0 are rounded to 1, so most of the sample would lie there: sampled by value too.
  auto x = floats_between(-87.0f, 88.0f, 1009);
  for (double at = -87.0; at <= 88.0; at += 1.0 / 8192) x.push_back(static_cast<float>(at));
  std::vector<float> y(x.size());
  kernel_table(GetParam()).exp(x.data(), static_cast<int64_t>(x.size()), y.data());
  EXPECT_LE(largest_error(x, y, std::exp), 1.0);
}

TEST_P(Exp, KeepsNaNAndStaysFiniteBeyondItsRange) {
  const std::vector<float> x{NAN, -1e30f, 1e30f, -INFINITY, INFINITY, 0.0f, -0.0f};
  std::vector<float> y(x.size());
  kernel_table(GetParam()).exp(x.data(), static_cast<int64_t>(x.size()), y.data());
  EXPECT_TRUE(std::isnan(y[0]));
  EXPECT_EQ(y[5], 1.0f);
  EXPECT_EQ(y[6], 1.0f);
  if (GetParam() == Isa::reference) return;  // which has no such ends
  EXPECT_EQ(y[1], y[3]);
  EXPECT_NEAR(y[1], 1.6458115e-38f, 1e-44);  // e^-87
  EXPECT_EQ(y[2], y[4]);
  EXPECT_NEAR(y[2], 1.6516363e38f, 1e32);  // e^88
}

TEST_P(Log, IsWithinTwoUnitsInTheLastPlaceOfNormalNumbers) {
  auto x = floats_between(std::numeric_limits<float>::min(), std::numeric_limits<float>::max(), 1009);
  for (double at = 0.5; at <= 2.0; at += 1.0 / 65536) {
    if (at != 1.0) x.push_back(static_cast<float>(at));
  }
  std::vector<float> y(x.size());
  kernel_table(GetParam()).log(x.data(), static_cast<int64_t>(x.size()), y.data());
  EXPECT_LE(largest_error(x, y, std::log), 2.0);
}

TEST_P(Log, IsExactAtOneAndKeepsNaN) {
  const std::vector<float> x{1.0f, NAN};
  std::vector<float> y(2);
  kernel_table(GetParam()).log(x.data(), 2, y.data());
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_TRUE(std::isnan(y[1]));
}

TEST_P(Exp, OfDoublesIsWithinTwoUnitsInTheLastPlace) {
  std::vector<double> x;
  for (int i = 0; i <= 400000; ++i) x.push_back(-708.0 * i / 400000);
  for (int i = 0; i < 400; ++i) x.push_back(-std::ldexp(1.0, -i));
  std::vector<double> y(x.size());
  kernel_table(GetParam()).exp_double(x.data(), static_cast<int64_t>(x.size()), y.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const long double expected = std::exp(static_cast<long double>(x[i]));
    const auto unit = std::ldexp(1.0L, std::ilogb(expected) - 52);
    ASSERT_LE(std::abs(static_cast<double>((y[i] - expected) / unit)), 2.0) << "x = " << x[i];
  }
}

TEST_P(Exp, OfDoublesVanishesFarBelowAndKeepsNaN) {
  const std::vector<double> x{-1e5, -INFINITY, std::nan(""), 0.0};
  std::vector<double> y(x.size());
  kernel_table(GetParam()).exp_double(x.data(), 4, y.data());
  EXPECT_EQ(y[0], 0.0);
  EXPECT_EQ(y[1], 0.0);
  EXPECT_TRUE(std::isnan(y[2]));
  EXPECT_EQ(y[3], 1.0);
}

}  // namespace
}  // namespace crumb::kernels
