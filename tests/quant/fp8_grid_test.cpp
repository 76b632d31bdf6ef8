#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/seq.h"
#include "quant/scale_search.h"
#include "tests/quant/random_weights.h"
#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

using testing::draw;
using ::testing::ElementsAre;
using testing::least_squared_error;
using testing::squared_error;

const QuantFormat kFp8{.grid = Grid::fp8, .bits = 8};

float scale_of(const std::vector<float>& w, ScaleInit init, const float* importance = nullptr) {
  return testing::scale_of(kFp8, w, init, importance);
}
std::vector<uint8_t> codes_of(const std::vector<float>& w, float scale) { return testing::codes_of(kFp8, w, scale); }

/// Of the bits 0x00 ... 0x7e: their exponent is bits / 8, biased by 7; exponent 0 has no leading one.
double value_of_bits(int bits) {
  return bits < 8 ? bits * std::ldexp(1.0, -9) : (8 + bits % 8) * std::ldexp(1.0, bits / 8 - 10);
}

TEST(Fp8Grid, HasTheFiniteValuesOfE4M3) {
  const auto levels = kFp8.levels();
  ASSERT_EQ(levels.size(), 253u);
  for (int bits = 0; bits <= 126; ++bits) {
    EXPECT_EQ(levels[static_cast<size_t>(126 + bits)], value_of_bits(bits)) << bits;
    EXPECT_EQ(levels[static_cast<size_t>(126 - bits)], -value_of_bits(bits)) << bits;
  }
  EXPECT_EQ(levels.back(), 448);
  EXPECT_EQ(levels[126 + 0x38], 1);
  EXPECT_FALSE(std::signbit(levels[126]));
  EXPECT_EQ(kFp8.title(), "FP8");
  EXPECT_EQ(kFp8.type_name(), "fp8");
}

// Every value, what lies next to it, and every place halfway between two with its neighbours.
TEST(Fp8Grid, TakesTheNearestValueAndTheEvenOneHalfway) {
  const auto levels = kFp8.levels();
  const float inf = std::numeric_limits<float>::infinity();
  for (const float scale : {1.0f, 0x1.4p-9f, 0x1.f8p3f}) {
    std::vector<float> w;
    std::vector<uint8_t> expected;
    const auto add = [&](float x, int code) {
      w.push_back(x);
      expected.push_back(static_cast<uint8_t>(code));
    };
    for (int code = 0; code < 253; ++code) {
      const float level = levels[static_cast<size_t>(code)] * scale;
      add(level, code);
      add(std::nextafter(level, -inf), code);
      add(std::nextafter(level, inf), code);
      if (code == 252) break;
      const float half = (levels[static_cast<size_t>(code)] + levels[static_cast<size_t>(code + 1)]) / 2 * scale;
      const float eps = 4 * std::fabs(half) * std::numeric_limits<float>::epsilon();  // w / scale is rounded
      add(half - eps, code);
      add(half, code % 2 == 0 ? code : code + 1);  // 126 is zero, so even codes have even bits
      add(half + eps, code + 1);
    }
    EXPECT_EQ(codes_of(w, scale), expected) << scale;
  }
}

TEST(Fp8Grid, BeyondTheRangeIsTheLargestValueAndNeverNan) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_THAT(codes_of({464.0f, 1e30f, inf, -449.0f, -inf, -0.0f, 1e-40f}, 1.0f),
              ElementsAre(252, 252, 252, 0, 0, 126, 126));
  EXPECT_LT(codes_of({std::numeric_limits<float>::quiet_NaN()}, 1.0f)[0], 253);
}

TEST(Fp8Grid, AbsmaxIsTheLargestWeightOver448) {
  EXPECT_EQ(scale_of({-896.0f, 3.0f}, ScaleInit::absmax), 2.0f);
  EXPECT_EQ(scale_of({0.1f}, ScaleInit::absmax), kernels::round_scale(0.1f / 448));
}

TEST(Fp8Grid, MseIsTheBestOfAllRepresentableScales) {
  const auto levels = kFp8.levels();
  int differs = 0;
  for (const auto& law : {testing::gaussian, testing::heavy}) {
    for (const int64_t n : {1, 2, 7, 33, 128}) {
      for (uint64_t stream = 0; stream < 6; ++stream) {
        auto w = draw(n, stream, law);
        if (stream == 5) w[0] = 1000 * w[0];
        auto importance = draw(n, 100 + stream, [](const Rng& rng, uint64_t i) { return rng.uniform(i); });
        if (stream % 2 == 1) importance[0] = 0;
        const float plain = scale_of(w, ScaleInit::mse), weighted = scale_of(w, ScaleInit::mse, importance.data());
        EXPECT_EQ(kernels::round_scale(plain), plain);
        double rounding = 0;  // errors are floats
        for (const float x : w) rounding += 1e-12 * x * x;
        EXPECT_LE(squared_error(levels, w, plain), least_squared_error(levels, w) * (1 + 1e-5) + rounding)
            << n << " " << stream;
        EXPECT_LE(squared_error(levels, w, weighted, importance),
                  least_squared_error(levels, w, importance) * (1 + 1e-5) + rounding)
            << n << " " << stream;
        differs += plain != weighted ? 1 : 0;
      }
    }
  }
  EXPECT_GT(differs, 20);
}

TEST(Fp8Grid, RowsOfZerosStayZeroAndScalesStayInTheirRange) {
  for (const auto init : kFp8.grid.facts().inits) {
    EXPECT_EQ(scale_of({0.0f, -0.0f}, init), kernels::kMinScale);
    EXPECT_EQ(scale_of({1e30f, 1.0f}, init), kernels::kMaxScale);
    EXPECT_EQ(scale_of({1e-9f, -1e-9f}, init), kernels::kMinScale);
  }
  EXPECT_THAT(codes_of({0.0f, -0.0f}, kernels::kMinScale), ElementsAre(126, 126));
}

// Relative errors are uniform in half a step of 1/8 to 1/16: between 2^-8 / 12 and 2^-6 / 12 of each square.
TEST(Fp8Grid, DistortionOfAGaussianLiesInItsBand) {
  const auto w = draw(65536, 5, testing::gaussian);
  double power = 0;
  for (const float x : w) power += static_cast<double>(x) * x;
  for (const auto init : kFp8.grid.facts().inits) {
    const double error = squared_error(kFp8.levels(), w, scale_of(w, init)) / power;
    EXPECT_GT(error, 0x1p-8 / 12);
    EXPECT_LT(error, 0x1p-6 / 12);
  }
}

}  // namespace
}  // namespace crumb::quant
