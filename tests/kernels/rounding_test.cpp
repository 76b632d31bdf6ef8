#include "kernels/rounding.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "core/formats/dtype.h"
#include "tests/kernels/isa_cases.h"

namespace crumb::kernels {
namespace {

using testing::normal_values;

class Rounding : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Paths, Rounding, ::testing::ValuesIn(testing::isas()), testing::isa_label);

struct Int8Values {
  std::vector<int8_t> codes;
  float scale;
};
Int8Values rounded(const std::vector<float>& x, Isa isa) {
  Int8Values out{std::vector<int8_t>(x.size() + 1, int8_t{99}), 0};
  out.scale = round_to_int8(x.data(), static_cast<int64_t>(x.size()), out.codes.data(), isa);
  EXPECT_EQ(out.codes.back(), 99) << "beyond the values";
  out.codes.pop_back();
  return out;
}

TEST_P(Rounding, ToInt8IsTheNearestMultipleOfTheScale) {
  for (const int64_t n : {1, 7, 8, 16, 17, 31, 64, 172, 576}) {
    const auto x = normal_values(n, static_cast<uint64_t>(n));
    float most = 0;
    for (const float v : x) most = std::max(most, std::abs(v));
    const auto [codes, scale] = rounded(x, GetParam());
    EXPECT_EQ(scale, most / 127.0f);
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_EQ(codes[i], static_cast<int8_t>(std::nearbyint(x[i] / scale))) << n << " values, value " << i;
  }
}

TEST_P(Rounding, ToInt8TiesGoToEven) {
  EXPECT_EQ(rounded({127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -127}, GetParam()).codes,
            (std::vector<int8_t>{127, 0, 2, 2, 0, -2, -2, -127}));
}

TEST_P(Rounding, ToInt8SaysWhatCannotBeRounded) {
  for (const float bad : {INFINITY, -INFINITY, NAN, -NAN}) {
    std::vector<float> x = normal_values(40, 1);
    x[33] = bad;
    const auto [codes, scale] = rounded(x, GetParam());
    EXPECT_TRUE(std::isnan(scale)) << bad;
    EXPECT_EQ(codes, std::vector<int8_t>(40)) << bad;
  }
  const float least = std::numeric_limits<float>::denorm_min();
  for (const float small : {0.0f, -0.0f, least}) {
    const auto [codes, scale] = rounded(std::vector<float>(20, small), GetParam());
    EXPECT_EQ(scale, 0.0f);
    EXPECT_EQ(codes, std::vector<int8_t>(20));
  }
  // A scale that has lost its digits gives quotients beyond 127.
  const auto [codes, scale] = rounded({least * 190, -least * 190}, GetParam());
  EXPECT_EQ(scale, least);
  EXPECT_EQ(codes, (std::vector<int8_t>{127, -128}));
}

TEST_P(Rounding, ToBf16IsToNearestTiesToEven) {
  auto x = normal_values(77, 3);
  for (const float v : {0.0f, -0.0f, INFINITY, -INFINITY, 1.00390625f, 1.01171875f}) x.push_back(v);  // the last: ties
  std::vector<Bf16> y(x.size());
  round_to_bf16(x.data(), static_cast<int64_t>(x.size()), y.data(), GetParam());
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i].bits, formats::to_bf16(x[i])) << x[i];
  const float nan = NAN;
  round_to_bf16(&nan, 1, y.data(), GetParam());
  EXPECT_TRUE(std::isnan(widened(y[0])));
}

TEST(Bf16Stride, KeepsNeighbouringTokensApartInTheCache) {
  for (const int64_t cols : {1, 32, 33, 576, 2048, 4096}) {
    EXPECT_GE(bf16_stride(cols), cols);
    EXPECT_EQ(bf16_stride(cols) % 64, 32);
  }
}

}  // namespace
}  // namespace crumb::kernels
