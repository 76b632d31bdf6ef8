#include "quant/scale_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/common/half.h"
#include "core/common/rng.h"
#include "core/formats/dtype.h"
#include "kernels/seq.h"
#include "tests/quant/random_weights.h"
#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

using kernels::kMaxScale;
using kernels::kMinScale;
using kernels::round_scale;
using testing::draw;
using testing::gaussian;
using testing::heavy;

float seq_scale(const float* w, int64_t n, ScaleInit init) { return Grid::seq->find_scale(w, n, {}, init).scale; }
GroupScale int_scale(const float* w, int64_t n, int bits, bool symmetric, ScaleInit init) {
  return Grid::intn->find_scale(w, n, {Grid::intn, bits, symmetric, 0}, init);
}

double seq_error(const std::vector<float>& w, float s) {
  double sum = 0;
  for (const float x : w) {
    const double difference = x - static_cast<double>(kernels::seq_level(kernels::seq_code(x, s), s));
    sum += difference * difference;
  }
  return sum;
}

double power(const std::vector<float>& w) {
  double sum = 0;
  for (const float x : w) sum += static_cast<double>(x) * x;
  return sum;
}

float max_abs(const std::vector<float>& w) {
  float most = 0;
  for (const float x : w) most = std::max(most, std::fabs(x));
  return most;
}

/// The least error over every scale with 6 significant bits up to max|w|, by trying each.
double least_seq_error(const std::vector<float>& w) {
  double best = std::numeric_limits<double>::infinity();
  for (int mantissa = 32; mantissa < 64; ++mantissa) {
    for (int exponent = -22; exponent <= 9; ++exponent) {
      const float s = std::ldexp(static_cast<float>(mantissa), exponent);
      if (s <= max_abs(w)) best = std::min(best, seq_error(w, s));
    }
  }
  return best;
}

TEST(SeqScale, MseIsTheBestOfAllRepresentableScales) {
  int rows = 0;
  for (const auto& law : {gaussian, heavy}) {
    for (const int64_t n : {1, 2, 3, 16, 33, 128, 2048}) {
      for (uint64_t stream = 0; stream < 20; ++stream) {
        const auto w = draw(n, stream, law);
        const float s = seq_scale(w.data(), n, ScaleInit::mse);
        EXPECT_EQ(round_scale(s), s);
        EXPECT_LE(seq_error(w, s), least_seq_error(w) * (1 + 1e-9) + 1e-12 * power(w))
            << "n = " << n << ", row " << stream;
        ++rows;
      }
    }
  }
  EXPECT_EQ(rows, 280);
}

// A column of a matrix gets the codes that its rows would.
TEST(ScaleSearch, CodesOfAColumnAreThoseOfTheRows) {
  for (const QuantFormat& format :
       {QuantFormat{}, QuantFormat{Grid::intn, 4, true, 0}, QuantFormat{Grid::intn, 3, false, 0},
        QuantFormat{Grid::ternary, 2, true, 0}, QuantFormat{Grid::fp8, 8, true, 0}}) {
    auto w = draw(999, 21, heavy);
    std::vector<GroupScale> groups;
    for (size_t i = 0; i < w.size(); ++i) {
      groups.push_back({round_scale(0.3f + 0.01f * static_cast<float>(i % 90)), static_cast<int32_t>(i % 5)});
      if (i % 9 == 0) w[i] = groups[i].scale * (static_cast<float>(i % 7) - 3) / 2;  // ties, and the levels themselves
    }
    std::vector<uint8_t> column(w.size()), alone(w.size());
    format.grid->nearest_codes_of_column(w.data(), std::ssize(w), format, groups.data(), column.data());
    for (size_t i = 0; i < w.size(); ++i) format.grid->nearest_codes(&w[i], 1, format, groups[i], &alone[i]);
    EXPECT_EQ(column, alone) << format.title();
  }
}

// Importance of whole numbers is the same as writing each weight that often.
TEST(ScaleSearch, ImportanceCountsAWeightSeveralTimes) {
  for (const QuantFormat& format :
       {QuantFormat{}, QuantFormat{Grid::intn, 4, true, 0}, QuantFormat{Grid::intn, 3, false, 0},
        QuantFormat{Grid::ternary, 2, true, 0}, QuantFormat{Grid::fp8, 8, true, 0}}) {
    int differs = 0;
    for (uint64_t stream = 0; stream < 20; ++stream) {
      const auto w = draw(48, stream, heavy);
      std::vector<float> importance(w.size()), repeated;
      for (size_t i = 0; i < w.size(); ++i) importance[i] = static_cast<float>(i % 4);
      // those of importance 0 still bound the range
      const auto [low, high] = std::minmax_element(w.begin(), w.end());
      importance[static_cast<size_t>(low - w.begin())] = importance[static_cast<size_t>(high - w.begin())] = 1;
      for (size_t i = 0; i < w.size(); ++i) repeated.insert(repeated.end(), static_cast<size_t>(importance[i]), w[i]);
      const auto find = [&](const std::vector<float>& values, const float* weights) {
        return format.grid->find_scale(values.data(), std::ssize(values), format, ScaleInit::mse, weights);
      };
      const GroupScale weighted = find(w, importance.data()), expected = find(repeated, nullptr),
                       plain = find(w, nullptr);
      EXPECT_EQ(weighted.scale, expected.scale) << format.title() << " " << stream;
      EXPECT_EQ(weighted.zero_point, expected.zero_point) << format.title() << " " << stream;
      differs += weighted.scale != plain.scale ? 1 : 0;
    }
    EXPECT_GT(differs, 10) << format.title();
  }
}

// One outlier of 200 sigma in 2048: the best scale lies 7 octaves below the maximum.
TEST(SeqScale, MseFindsTheBulkUnderAnOutlier) {
  auto w = draw(8192, 3, gaussian);
  w[100] = 2.0f;
  const float s = seq_scale(w.data(), 8192, ScaleInit::mse);
  EXPECT_LT(s, 0.03f);
  EXPECT_GT(s, 0.015f);
}

TEST(SeqScale, AbsmaxAndAbsmeanAreTheirFormulas) {
  const std::vector<float> w = {-3.0f, 1.0f, 2.0f, 0.0f};
  EXPECT_EQ(seq_scale(w.data(), 4, ScaleInit::absmax), round_scale(1.5f));
  EXPECT_EQ(seq_scale(w.data(), 4, ScaleInit::absmean), round_scale(1.25f * 1.5f));
}

TEST(SeqScale, ConstantRowsAreExactWhenTheGridHoldsThem) {
  const std::vector<float> w(64, -0.75f);
  const float s = seq_scale(w.data(), 64, ScaleInit::mse);
  EXPECT_EQ(s, 0.5f);
  EXPECT_EQ(seq_error(w, s), 0.0);
}

TEST(SeqScale, RowsOfZerosAndDenormalsGetTheSmallestScale) {
  for (const float value : {0.0f, -0.0f, 1e-40f, 1e-7f}) {
    const std::vector<float> w(8, value);
    for (const auto init : {ScaleInit::absmax, ScaleInit::absmean, ScaleInit::mse})
      EXPECT_EQ(seq_scale(w.data(), 8, init), kMinScale) << value;
  }
}

TEST(SeqScale, HugeWeightsGetTheLargestScale) {
  const std::vector<float> w(8, 1e30f);
  for (const auto init : {ScaleInit::absmax, ScaleInit::absmean, ScaleInit::mse})
    EXPECT_EQ(seq_scale(w.data(), 8, init), kMaxScale);
}

TEST(SeqScale, DistortionOfAGaussianLiesInItsBand) {
  constexpr int64_t kRows = 64, kCols = 2048;
  const auto w = draw(kRows * kCols, 5, gaussian);
  const auto relative_error = [&](ScaleInit init) {
    const auto q = round_to_nearest(w.data(), kRows, kCols, QuantFormat{}, init);
    std::vector<float> values(w.size());
    q.dequantize(values.data());
    double sum = 0;
    for (size_t i = 0; i < w.size(); ++i) sum += std::pow(static_cast<double>(w[i]) - values[i], 2);
    return sum / power(w);
  };
  const double mse = relative_error(ScaleInit::mse), absmean = relative_error(ScaleInit::absmean),
               absmax = relative_error(ScaleInit::absmax);
  EXPECT_GT(mse, 0.115);  // the optimum of four levels for a Gaussian is 0.1188
  EXPECT_LT(mse, 0.125);
  EXPECT_GT(absmean, mse);
  EXPECT_LT(absmean, 0.13);
  EXPECT_GT(absmax, 0.25);
  EXPECT_LT(absmax, 0.33);
}

TEST(ScaleInitName, UnknownIsRefusedWithTheKnownOnes) {
  EXPECT_EQ(scale_init_from_name("absmean"), ScaleInit::absmean);
  EXPECT_EQ(testing::error_of([] { scale_init_from_name("msq"); }),
            "method.init: unknown \"msq\"; known: absmax, absmean, mse");
}

// --- integers
// ---------------------------------------------------------------------------------------------------------

struct IntCase {
  int bits;
  bool symmetric;
  ScaleInit init;
  int64_t group_size;
};
class IntGrid : public ::testing::TestWithParam<IntCase> {};

TEST_P(IntGrid, EveryCodeIsTheNearestOfTheGrid) {
  const auto [bits, symmetric, init, group_size] = GetParam();
  constexpr int64_t kRows = 4, kCols = 132;
  const auto w = draw(kRows * kCols, 9, heavy);
  const QuantFormat format{.grid = Grid::intn, .bits = bits, .symmetric = symmetric, .group_size = group_size};
  const auto q = round_to_nearest(w.data(), kRows, kCols, format, init);
  std::vector<float> values(w.size());
  q.dequantize(values.data());
  const int64_t group_cols = format.group_cols(kCols);
  ASSERT_EQ(q.scales.size(), static_cast<size_t>(kRows * format.groups(kCols)));
  ASSERT_EQ(q.zero_points.size(), symmetric ? 0 : q.scales.size());
  for (size_t i = 0; i < w.size(); ++i) {
    const size_t group = i / static_cast<size_t>(group_cols);
    const double s = q.scales[group];
    const int zero = symmetric ? 1 << (bits - 1) : q.zero_points[group];
    EXPECT_EQ(round_scale(q.scales[group]), q.scales[group]);
    ASSERT_LT(q.codes[i], 1 << bits);
    double best = std::numeric_limits<double>::infinity();
    for (int code = 0; code < (1 << bits); ++code) best = std::min(best, std::fabs((code - zero) * s - w[i]));
    EXPECT_LE(std::fabs(static_cast<double>(values[i]) - w[i]), best + 1e-6 * s) << "weight " << i;
    // inside the grid no error above half a step
    const bool is_inside = w[i] >= -zero * s && w[i] <= ((1 << bits) - 1 - zero) * s;
    EXPECT_TRUE(!is_inside || best <= 0.5 * s * (1 + 1e-6)) << "weight " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Grids, IntGrid,
                         ::testing::Values(IntCase{8, true, ScaleInit::absmax, 0},
                                           IntCase{8, false, ScaleInit::absmax, 0},
                                           IntCase{4, true, ScaleInit::mse, 33}, IntCase{4, false, ScaleInit::mse, 0},
                                           IntCase{4, true, ScaleInit::absmax, 12},
                                           IntCase{3, false, ScaleInit::mse, 44},
                                           IntCase{2, true, ScaleInit::mse, 66}));

TEST(IntScale, AbsmaxIsTheLargestWeightOverTheLargestCode) {
  const std::vector<float> w = {-7.0f, 3.5f, 0.0f};
  const auto symmetric = int_scale(w.data(), 3, 4, true, ScaleInit::absmax);
  EXPECT_EQ(symmetric.scale, 1.0f);
  EXPECT_EQ(symmetric.zero_point, 0) << "its levels are around 0";
  const auto asymmetric = int_scale(w.data(), 3, 4, false, ScaleInit::absmax);
  EXPECT_EQ(asymmetric.scale, round_scale(10.5f / 15));
  EXPECT_EQ(asymmetric.zero_point, 10);  // 7 / 0.703125 = 9.96
}

TEST(IntScale, AsymmetricRangeHoldsZeroForOneSidedRows) {
  const std::vector<float> w = {5.0f, 6.0f, 7.0f};
  const auto q =
      round_to_nearest(w.data(), 1, 3, {.grid = Grid::intn, .bits = 8, .symmetric = false}, ScaleInit::absmax);
  EXPECT_EQ(q.zero_points[0], 0);
  const std::vector<float> negative = {-5.0f, -6.0f};
  EXPECT_EQ(int_scale(negative.data(), 2, 8, false, ScaleInit::absmax).zero_point, 255);
}

// --- integers with a float zero point

const QuantFormat kFloatZero4{Grid::intn, 4, false, 0, false, true};

double error_with(const std::vector<float>& w, const QuantFormat& format, double scale, double minimum,
                  const std::vector<float>& importance) {
  const double top = (1 << format.bits) - 1;
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double code = std::clamp(std::nearbyint((w[i] - minimum) / scale), 0.0, top);
    sum += importance[i] * std::pow(w[i] - (code * scale + minimum), 2);
  }
  return sum;
}

TEST(FloatZeroPoint, MseIsCloseToTheBestOfAllScalesAndMinima) {
  for (const int bits : {2, 3, 4}) {
    QuantFormat format = kFloatZero4;
    format.bits = bits;
    double ours_of_all = 0, best_of_all = 0;
    for (uint64_t stream = 0; stream < 24; ++stream) {
      auto w = draw(32, stream, stream % 2 == 0 ? heavy : gaussian);
      for (float& x : w) x += stream % 3 == 0 ? 2.0f : 0.0f;  // far from 0
      std::vector<float> importance(w.size(), 1.0f);
      if (stream % 4 == 1) {
        for (size_t i = 0; i < w.size(); ++i) importance[i] = 0.1f + static_cast<float>(i % 7);
      }
      const GroupScale found = format.grid->find_scale(w.data(), std::ssize(w), format, ScaleInit::mse,
                                                       stream % 4 == 1 ? importance.data() : nullptr);
      EXPECT_EQ(round_scale(found.scale), found.scale);
      EXPECT_EQ(round_minimum(found.minimum), found.minimum);
      const auto [low, high] = std::ranges::minmax(w);
      const double range = high - low, top = (1 << bits) - 1;
      double best = std::numeric_limits<double>::infinity();
      for (double scale = 0.25 * range / top; scale < 1.2 * range / top; scale *= 1.01) {
        for (double minimum = low - 0.1 * range; minimum < low + 0.6 * range; minimum += 0.01 * range)
          best = std::min(best, error_with(w, format, round_scale(static_cast<float>(scale)), minimum, importance));
      }
      const double ours = error_with(w, format, found.scale, found.minimum, importance);
      EXPECT_LE(ours, 1.6 * best) << bits << " bits, " << stream;
      ours_of_all += ours;
      best_of_all += best;
    }
    EXPECT_LE(ours_of_all, 1.08 * best_of_all) << bits;
  }
}

// What a file of GGUF's q4_1 held, in bfloat16.
TEST(FloatZeroPoint, FindsTheCodesThatWeightsWereMadeOf) {
  const Rng rng(3, 77);
  for (const auto init : {ScaleInit::absmax, ScaleInit::mse}) {
    for (uint64_t group = 0; group < 200; ++group) {
      const float d = from_f16(to_f16(static_cast<float>(0.002 + 0.02 * rng.uniform(2 * group))));
      const float m = from_f16(to_f16(-d * static_cast<float>(15 * rng.uniform(2 * group + 1))));
      std::vector<uint8_t> codes = {0, 15};  // as encoders use the whole range
      for (uint64_t i = 2; i < 32; ++i) codes.push_back(static_cast<uint8_t>(rng.below(100 * group + i, 16)));
      std::vector<float> w;
      for (const uint8_t code : codes) w.push_back(formats::round_to_bf16(static_cast<float>(code) * d + m));
      const auto q = round_to_nearest(w.data(), 1, 32, kFloatZero4, init);
      EXPECT_EQ(q.codes, codes);
      std::vector<float> values(w.size());
      q.dequantize(values.data());
      // The scale has 6 bits, so that the ends of the range move by up to 7.5 / 64 steps; bf16 has 8.
      for (size_t i = 0; i < w.size(); ++i) EXPECT_NEAR(values[i], w[i], (7.5 / 64 + 0.05) * d) << group;
    }
  }
}

TEST(FloatZeroPoint, EqualWeightsStayWhatTheyAre) {
  for (const float value : {0.0f, -0.5f, 0.6875f, 3.0f}) {
    const std::vector<float> w(16, value);
    for (const auto init : {ScaleInit::absmax, ScaleInit::mse}) {
      const auto q = round_to_nearest(w.data(), 1, 16, kFloatZero4, init);
      std::vector<float> values(16, 1.0f);
      q.dequantize(values.data());
      EXPECT_EQ(values, w);
      EXPECT_EQ(count_clamped(w.data(), q.scales.data(), 1, 16, kFloatZero4), 0);
    }
  }
  const std::vector<float> varied = {1e-7f, 2e-7f};
  const float scale = kernels::kMinScale;
  EXPECT_EQ(count_clamped(varied.data(), &scale, 1, 2, kFloatZero4), 1);
}

TEST(FloatZeroPoint, MseNeverLosesToAbsmaxOrToIntegers) {
  double integers_sum = 0, ours_sum = 0;
  for (uint64_t stream = 0; stream < 40; ++stream) {
    const auto w = draw(32, stream, heavy);
    const auto error = [&](const QuantFormat& format, ScaleInit init) {
      const auto q = round_to_nearest(w.data(), 1, 32, format, init);
      std::vector<float> values(w.size());
      q.dequantize(values.data());
      double sum = 0;
      for (size_t i = 0; i < w.size(); ++i) sum += std::pow(static_cast<double>(w[i]) - values[i], 2);
      return sum;
    };
    const double ours = error(kFloatZero4, ScaleInit::mse);
    EXPECT_LE(ours, error(kFloatZero4, ScaleInit::absmax) * (1 + 1e-5)) << stream;
    ours_sum += ours;
    integers_sum += error({Grid::intn, 4, false, 0}, ScaleInit::mse);
  }
  EXPECT_LT(ours_sum, 0.97 * integers_sum);
}

TEST(FloatZeroPoint, GivesFiniteNumbersToWeightsOfEveryKind) {
  for (const std::vector<float>& w : {std::vector{1e30f, -1e30f, 1.0f},
                                      {3e38f, -3e38f},
                                      {1e-40f, -1e-40f},
                                      {-0.0f},
                                      {1e30f, 1e30f},
                                      {-70000.0f, -70001.0f}}) {
    for (const auto init : {ScaleInit::absmax, ScaleInit::mse}) {
      const GroupScale found = kFloatZero4.grid->find_scale(w.data(), std::ssize(w), kFloatZero4, init);
      EXPECT_TRUE(found.scale >= kernels::kMinScale && found.scale <= kernels::kMaxScale) << w[0];
      EXPECT_EQ(round_minimum(found.minimum), found.minimum) << w[0];
    }
  }
}

TEST(RoundMinimum, KeepsElevenBitsWithinTheRangeOfBinary16) {
  EXPECT_EQ(round_minimum(-1.0f), -1.0f);
  EXPECT_EQ(round_minimum(2047.0f), 2047.0f);
  EXPECT_EQ(round_minimum(2049.0f), 2048.0f) << "half to even";
  EXPECT_EQ(round_minimum(1e9f), 65504.0f);
  EXPECT_EQ(round_minimum(-65535.0f), -65504.0f);
}

TEST(IntScale, RowsOfZerosStayZero) {
  const std::vector<float> w(16, 0.0f);
  for (const bool symmetric : {true, false}) {
    for (const auto init : {ScaleInit::absmax, ScaleInit::mse}) {
      const auto q = round_to_nearest(w.data(), 1, 16, {.grid = Grid::intn, .bits = 4, .symmetric = symmetric}, init);
      std::vector<float> values(16, 1.0f);
      q.dequantize(values.data());
      EXPECT_EQ(values, w);
    }
  }
}

TEST(IntScale, MseBeatsAbsmaxOnHeavyTailsAndNeverLosesToIt) {
  double mse_sum = 0, absmax_sum = 0;
  for (uint64_t row = 0; row < 16; ++row) {
    const auto w = draw(512, 20 + row, heavy);
    const auto error = [&](ScaleInit init) {
      const auto q = round_to_nearest(w.data(), 1, 512, {.grid = Grid::intn, .bits = 4, .symmetric = true}, init);
      std::vector<float> values(w.size());
      q.dequantize(values.data());
      double sum = 0;
      for (size_t i = 0; i < w.size(); ++i) sum += std::pow(static_cast<double>(w[i]) - values[i], 2);
      return sum;
    };
    EXPECT_LE(error(ScaleInit::mse), error(ScaleInit::absmax) * (1 + 1e-5));
    mse_sum += error(ScaleInit::mse);
    absmax_sum += error(ScaleInit::absmax);
  }
  EXPECT_LT(mse_sum, 0.7 * absmax_sum);
}

// A uniform error of +- s/2 has the power s^2 / 12; rounding of the scale and clipped ends move it by a few percent.
TEST(IntScale, NoiseOfEightBitsFollowsTheLawOfUniformError) {
  const auto w = draw(65536, 31, [](const Rng& rng, uint64_t i) { return 2 * rng.uniform(i) - 1; });
  const auto q =
      round_to_nearest(w.data(), 16, 4096, {.grid = Grid::intn, .bits = 8, .symmetric = true}, ScaleInit::absmax);
  std::vector<float> values(w.size());
  q.dequantize(values.data());
  double error = 0;
  for (size_t i = 0; i < w.size(); ++i) error += std::pow(static_cast<double>(w[i]) - values[i], 2);
  const double law = std::pow(q.scales[0], 2) / 12;
  EXPECT_GT(error / 65536, 0.95 * law);
  EXPECT_LT(error / 65536, 1.1 * law);
}

TEST(IntScale, AbsmeanIsRefused) {
  const float w = 1;
  EXPECT_EQ(testing::error_of([&] {
              round_to_nearest(&w, 1, 1, {Grid::intn, 4, true, 0}, ScaleInit::absmean);
            }),
            "method.init: absmean is for grid seq, ternary; grid int knows absmax and mse");
}

TEST(RoundToNearest, GroupsAreQuantizedAsRowsOfTheirOwn) {
  const auto w = draw(2 * 96, 40, gaussian);
  const auto grouped = round_to_nearest(w.data(), 2, 96, {.group_size = 32}, ScaleInit::mse);
  const auto rows = round_to_nearest(w.data(), 6, 32, {}, ScaleInit::mse);
  EXPECT_EQ(grouped.codes, rows.codes);
  EXPECT_EQ(grouped.scales, rows.scales);
}

TEST(CountClamped, CountsGroupsAtAnEndOfTheRangeButNotZeros) {
  const std::vector<float> w = {1e-9f, 0, 0, 0, 1.0f, -1.0f, 1e9f, 0};  // two rows of two groups of two
  const std::vector<float> scales = {kMinScale, kMinScale, 0.5f, kMaxScale};
  EXPECT_EQ(count_clamped(w.data(), scales.data(), 2, 4, {.group_size = 2}), 2);
  EXPECT_EQ(count_clamped(w.data(), scales.data(), 1, 4, {.group_size = 2}), 1);
}

TEST(ClampedScales, AreNamedInOneWarningThatDoesNotGrow) {
  ::testing::internal::CaptureStderr();
  warn_about_clamped_scales({{"whole", 0, 4}});
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  std::vector<ClampedScales> many;
  for (int i = 0; i < 10; ++i) many.push_back({"linear." + std::to_string(i), i + 1, 20});
  ::testing::internal::CaptureStderr();
  warn_about_clamped_scales(many);
  const std::string words = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(words, ::testing::HasSubstr("linear.0 (1 of 20), "));
  EXPECT_THAT(words, ::testing::HasSubstr("linear.7 (8 of 20) and 2 more\n"));
}

}  // namespace
}  // namespace crumb::quant
