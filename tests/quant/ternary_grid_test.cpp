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

const QuantFormat kTernary{.grid = Grid::ternary, .bits = 2};

float scale_of(const std::vector<float>& w, ScaleInit init, const float* importance = nullptr) {
  return testing::scale_of(kTernary, w, init, importance);
}
std::vector<uint8_t> codes_of(const std::vector<float>& w, float scale) {
  return testing::codes_of(kTernary, w, scale);
}

TEST(TernaryGrid, HasThreeLevels) {
  EXPECT_THAT(kTernary.levels(), ElementsAre(-1, 0, 1));
  EXPECT_EQ(kTernary.title(), "TERNARY");
  EXPECT_EQ(kTernary.type_name(), "ternary2");
}

TEST(TernaryGrid, HalfwayIsZeroAndOutOfRangeIsTheOuterLevel) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_THAT(codes_of({0.5f, std::nextafter(0.5f, 1.0f), -0.5f, std::nextafter(-0.5f, -1.0f), 0.0f, -0.0f}, 1.0f),
              ElementsAre(1, 2, 1, 0, 1, 1));
  EXPECT_THAT(codes_of({1e30f, -1e30f, inf, -inf}, 0.25f), ElementsAre(2, 0, 2, 0));
}

TEST(TernaryGrid, AbsmaxAndAbsmeanAreTheirFormulas) {
  const std::vector<float> w = {-3.0f, 1.0f, 2.0f, 0.0f};
  EXPECT_EQ(scale_of(w, ScaleInit::absmax), 3.0f);
  EXPECT_EQ(scale_of(w, ScaleInit::absmean), 1.5f);
}

TEST(TernaryGrid, MseIsTheBestOfAllRepresentableScales) {
  const auto levels = kTernary.levels();
  int differs = 0;
  for (const auto& law : {testing::gaussian, testing::heavy}) {
    for (const int64_t n : {1, 2, 3, 16, 33, 128, 1024}) {
      for (uint64_t stream = 0; stream < 10; ++stream) {
        const auto w = draw(n, stream, law);
        const auto importance = draw(n, 100 + stream, [](const Rng& rng, uint64_t i) { return rng.uniform(i); });
        const float plain = scale_of(w, ScaleInit::mse), weighted = scale_of(w, ScaleInit::mse, importance.data());
        EXPECT_EQ(kernels::round_scale(plain), plain);
        EXPECT_LE(squared_error(levels, w, plain), least_squared_error(levels, w) * (1 + 1e-9)) << n << " " << stream;
        EXPECT_LE(squared_error(levels, w, weighted, importance),
                  least_squared_error(levels, w, importance) * (1 + 1e-9))
            << n << " " << stream;
        differs += plain != weighted ? 1 : 0;
      }
    }
  }
  EXPECT_GT(differs, 50);
}

TEST(TernaryGrid, MseFindsTheBulkUnderAnOutlier) {
  auto w = draw(8192, 3, testing::gaussian);
  w[100] = 1.0f;  // 50 sigma; of 100, the outlier alone would weigh more than the others
  EXPECT_GT(scale_of(w, ScaleInit::mse), 0.02f);
  EXPECT_LT(scale_of(w, ScaleInit::mse), 0.03f);
}

TEST(TernaryGrid, ConstantRowsAreExactWhenTheGridHoldsThem) {
  for (const auto init : kTernary.grid.facts().inits) {
    const auto q = round_to_nearest(std::vector<float>(8, -0.75f).data(), 1, 8, kTernary, init);
    EXPECT_THAT(q.scales, ElementsAre(0.75f));
    EXPECT_EQ(q.codes, std::vector<uint8_t>(8, 0));
  }
}

TEST(TernaryGrid, RowsOfZerosStayZeroAndScalesStayInTheirRange) {
  for (const auto init : kTernary.grid.facts().inits) {
    for (const float zero : {0.0f, -0.0f, 1e-40f}) {
      const std::vector<float> w(8, zero);
      EXPECT_EQ(scale_of(w, init), kernels::kMinScale);
      EXPECT_EQ(codes_of(w, kernels::kMinScale), std::vector<uint8_t>(8, 1));
    }
    EXPECT_EQ(scale_of(std::vector<float>(8, 1e30f), init), kernels::kMaxScale);
  }
}

// The best three levels of a Gaussian leave 0.1902 of its variance (Max, 1960).
TEST(TernaryGrid, DistortionOfAGaussianLiesInItsBand) {
  const auto w = draw(65536, 5, testing::gaussian);
  double power = 0;
  for (const float x : w) power += static_cast<double>(x) * x;
  const auto error = [&](ScaleInit init) { return squared_error(kTernary.levels(), w, scale_of(w, init)) / power; };
  EXPECT_GT(error(ScaleInit::mse), 0.185);
  EXPECT_LT(error(ScaleInit::mse), 0.195);
  EXPECT_GT(error(ScaleInit::absmean), error(ScaleInit::mse));
  EXPECT_GT(error(ScaleInit::absmax), 0.5);
}

}  // namespace
}  // namespace crumb::quant
