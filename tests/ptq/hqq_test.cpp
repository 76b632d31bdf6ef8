#include "ptq/hqq.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/seq.h"
#include "ptq/quantize.h"
#include "quant/checkpoint.h"
#include "quant/scale_search.h"
#include "tests/quant/random_weights.h"
#include "tests/testing/testing.h"

namespace crumb::ptq {
namespace {

using quant::Grid;
using quant::GroupScale;
using quant::QuantFormat;
using testing::draw;

/// Levels less the zero point that the grid puts the weights at.
std::vector<double> positions(const std::vector<float>& w, const QuantFormat& format, const GroupScale& group) {
  std::vector<uint8_t> codes(w.size());
  format.grid->nearest_codes(w.data(), std::ssize(w), format, group, codes.data());
  const auto levels = format.levels();
  std::vector<double> out;
  for (const uint8_t code : codes) out.push_back(levels[code] - (format.has_zero_points() ? group.zero_point : 0));
  return out;
}

/// sum |w - q|^p
double norm(const std::vector<float>& w, const QuantFormat& format, const GroupScale& group, double p) {
  const auto l = positions(w, format, group);
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i) sum += std::pow(std::fabs(w[i] - (l[i] * group.scale + group.minimum)), p);
  return sum;
}

/// The method as the header says it, in double.
GroupScale plain_loop(const std::vector<float>& w, const QuantFormat& format, const GroupScale& start,
                      const HalfQuadratic& options) {
  const auto levels = format.levels();
  const auto n = static_cast<double>(w.size());
  GroupScale best = start;
  double scale = start.scale, beta = options.beta, best_norm = norm(w, format, start, options.p);
  double minimum = start.minimum;
  int zero = start.zero_point;
  for (int step = 0; step < options.iterations; ++step, beta *= options.beta_growth) {
    const auto l = positions(w, format, {static_cast<float>(scale), zero, static_cast<float>(minimum)});
    std::vector<double> t;
    for (size_t i = 0; i < w.size(); ++i) {
      const double x = (w[i] - minimum) / scale - l[i], size = std::fabs(x);
      const double given_up = x == 0 ? 0 : std::max(0.0, size - std::pow(size, options.p - 1) / beta);
      t.push_back(w[i] - std::copysign(given_up, x) * scale);
    }
    double mean_t = 0, mean_l = 0, covariance = 0, variance = 0;
    for (size_t i = 0; i < w.size(); ++i) mean_t += t[i] / n, mean_l += l[i] / n;
    for (size_t i = 0; i < w.size(); ++i) {
      covariance += (t[i] - mean_t) * (l[i] - mean_l);
      variance += (l[i] - mean_l) * (l[i] - mean_l);
    }
    const auto take = [&](const GroupScale& rounded) {
      const double of_rounded = norm(w, format, rounded, options.p);
      if (of_rounded < best_norm) best = rounded;
      best_norm = std::min(best_norm, of_rounded);
    };
    if (format.has_minima) {  // the line t = minimum + slope * l, with the minimum that is best for the rounded slope
      if (!(covariance > 0 && variance > 0)) break;
      scale = covariance / variance;
      minimum = mean_t - scale * mean_l;
      const float rounded = kernels::round_scale(static_cast<float>(scale));
      take({rounded, 0, quant::round_minimum(static_cast<float>(mean_t - rounded * mean_l))});
      continue;
    }
    int moved = 0;
    if (format.has_zero_points()) {  // the line t = slope * (l - zero) of least squares
      if (covariance > 0 && variance > 0) {
        const double real = zero + mean_l - mean_t * variance / covariance;
        moved = static_cast<int>(std::nearbyint(std::clamp<double>(real, levels.front(), levels.back()))) - zero;
      }
    }
    zero += moved;
    double tl = 0, ll = 0;
    for (size_t i = 0; i < w.size(); ++i) tl += t[i] * (l[i] - moved), ll += (l[i] - moved) * (l[i] - moved);
    if (!(tl > 0 && ll > 0)) break;
    scale = std::clamp<double>(tl / ll, kernels::kMinScale, kernels::kMaxScale);
    take({kernels::round_scale(static_cast<float>(scale)), zero});
  }
  return best;
}

struct Case {
  const char* name;
  QuantFormat format;
};
class Hqq : public ::testing::TestWithParam<Case> {
 protected:
  const QuantFormat format = GetParam().format;
  GroupScale start_of(const std::vector<float>& w, quant::ScaleInit init = quant::ScaleInit::absmax) const {
    return format.grid->find_scale(w.data(), std::ssize(w), format, init);
  }
  GroupScale found_for(const std::vector<float>& w, const HalfQuadratic& options = {}) const {
    return half_quadratic_scale(w.data(), std::ssize(w), format, start_of(w), options);
  }
};

TEST_P(Hqq, EqualsAPlainLoopInDouble) {
  int same = 0, groups = 0;
  for (const auto& law : {testing::gaussian, testing::heavy}) {
    for (const int64_t n : {3, 32, 64, 250}) {
      for (uint64_t stream = 0; stream < 20; ++stream) {
        const auto w = draw(n, stream, law);
        const GroupScale ours = found_for(w), expected = plain_loop(w, format, start_of(w), {});
        EXPECT_EQ(kernels::round_scale(ours.scale), ours.scale);
        EXPECT_EQ(quant::round_minimum(ours.minimum), ours.minimum);
        // minima may differ by their last bit
        same += ours.scale == expected.scale && ours.zero_point == expected.zero_point &&
                        std::fabs(ours.minimum - expected.minimum) <= std::fabs(expected.minimum) / 1024
                    ? 1
                    : 0;
        ++groups;
      }
    }
  }
  // A weight halfway between two levels may fall to either side by the rounding of a float.
  EXPECT_GE(same, groups * 97 / 100) << "of " << groups;
}

TEST_P(Hqq, LowersItsNormAndNeverRaisesIt) {
  const HalfQuadratic options;
  int lower = 0;
  for (uint64_t stream = 0; stream < 50; ++stream) {
    const auto w = draw(64, stream, testing::heavy);
    const double before = norm(w, format, start_of(w), options.p), after = norm(w, format, found_for(w), options.p);
    EXPECT_LE(after, before * (1 + 1e-5)) << stream;
    lower += after < before * (1 - 1e-5) ? 1 : 0;
  }
  EXPECT_GE(lower, 25);
}

TEST_P(Hqq, GivesTheSameCodesToAMatrixThatIsMultiplied) {
  for (uint64_t stream = 0; stream < 20; ++stream) {
    auto w = draw(64, stream, testing::heavy);
    const GroupScale plain = found_for(w);
    for (float& x : w) x *= 0x1p4f;
    const GroupScale multiplied = found_for(w);
    EXPECT_EQ(multiplied.scale, 0x1p4f * plain.scale) << stream;
    EXPECT_EQ(multiplied.zero_point, plain.zero_point) << stream;
    EXPECT_EQ(multiplied.minimum, 0x1p4f * plain.minimum) << stream;
  }
}

TEST_P(Hqq, GivesFiniteScalesToWeightsOfEveryKind) {
  const std::vector<std::vector<float>> groups = {
      {0.0f},         {-0.0f, 0.0f, 0.0f}, std::vector<float>(64, 0.7f), std::vector<float>(64, -0.7f),
      {-3.0f},        {1e-40f, -1e-40f},   {1e-9f, 2e-9f, -3e-9f},       {1e30f, -1e30f, 1.0f},
      {3e38f, 3e38f}, {1e30f, 1e-30f}};
  for (const auto& w : groups) {
    for (const double p : {0.1, 1.0}) {
      for (const double beta : {0.01, 1e6}) {
        const GroupScale found = found_for(w, {.p = p, .beta = beta, .beta_growth = 10});
        EXPECT_GE(found.scale, kernels::kMinScale) << w[0];
        EXPECT_LE(found.scale, kernels::kMaxScale) << w[0];
        EXPECT_TRUE(std::isfinite(found.minimum)) << w[0];
        if (!format.has_zero_points()) continue;
        EXPECT_GE(found.zero_point, format.levels().front());
        EXPECT_LE(found.zero_point, format.levels().back());
      }
    }
  }
}

TEST_P(Hqq, QuantizesRowsByTheirGroups) {
  HqqMethod method;
  const auto w = draw(4 * 96, 5, testing::heavy);
  QuantFormat grouped = format;
  grouped.group_size = 32;
  method.init = "absmax";
  const auto q = std::get<std::unique_ptr<RowMethod>>(method.make())->quantize(w.data(), 4, 96, grouped, {});
  ASSERT_EQ(q.scales.size(), 12u);
  for (size_t group = 0; group < 12; ++group) {
    const std::vector<float> of_group(w.begin() + static_cast<int64_t>(group) * 32,
                                      w.begin() + static_cast<int64_t>(group) * 32 + 32);
    const GroupScale found = found_for(of_group);
    EXPECT_EQ(q.scales[group], found.scale);
    EXPECT_EQ(q.group(group), found);
    std::vector<uint8_t> codes(32);
    format.grid->nearest_codes(of_group.data(), 32, format, found, codes.data());
    EXPECT_TRUE(
        std::ranges::equal(codes, std::vector<uint8_t>(q.codes.begin() + static_cast<int64_t>(group) * 32,
                                                       q.codes.begin() + static_cast<int64_t>(group) * 32 + 32)));
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Hqq,
                         ::testing::Values(Case{"int4", {Grid::intn, 4, false, 0}},
                                           Case{"int4_float", {Grid::intn, 4, false, 0, false, true}},
                                           Case{"int2_float", {Grid::intn, 2, false, 0, false, true}},
                                           Case{"int4_symmetric", {Grid::intn, 4, true, 0}},
                                           Case{"int3", {Grid::intn, 3, false, 0}},
                                           Case{"int2_symmetric", {Grid::intn, 2, true, 0}},
                                           Case{"ternary", {Grid::ternary, 2, true, 0}}, Case{"seq", {}}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(HqqOfTrainedWeights, LeavesLessOfItsNormAndOfTheSquaresThanRoundingByTheLargest) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  const auto model = quant::open_checkpoint(folder);
  const auto& tensor = model->tensor("model.layers.1.mlp.up_proj.weight");
  const auto w = quant::read_all(*model, tensor);
  const int64_t rows = tensor.desc.rows(), cols = tensor.desc.cols();
  for (const bool symmetric : {true, false}) {
    const QuantFormat format{Grid::intn, 4, symmetric, 64};
    const auto error = [&](const quant::QuantizedTensor& q, double power) {
      std::vector<float> values(w.size());
      q.dequantize(values.data());
      double sum = 0;
      for (size_t i = 0; i < w.size(); ++i) sum += std::pow(std::fabs(static_cast<double>(w[i]) - values[i]), power);
      return sum;
    };
    HqqMethod method;
    method.init = "absmax";
    const auto ours = std::get<std::unique_ptr<RowMethod>>(method.make())->quantize(w.data(), rows, cols, format, {}),
               rounded = quant::round_to_nearest(w.data(), rows, cols, format, quant::ScaleInit::absmax);
    EXPECT_LT(error(ours, 0.7), 0.97 * error(rounded, 0.7)) << symmetric;
    EXPECT_LT(error(ours, 2), 0.97 * error(rounded, 2)) << symmetric;
  }
}

TEST(HqqConfig, RefusesExponentsThatMeanNothing) {
  const auto error = [](const std::string& key) {
    return testing::error_of([&] {
      read_config<QuantizeJob>(
          parse_yaml_text("model: m\noutput: o\nmethod: {name: hqq, " + key + "}\n", "j.yaml", "/"));
    });
  };
  EXPECT_EQ(error("p: 0.7, beta: 10, beta_growth: 1.01, iterations: 20"), "");
  EXPECT_EQ(error("p: 0"), "j.yaml:3:24: method.p: 0 is out of range, expected 0.1 to 1");
  EXPECT_EQ(error("p: 2"), "j.yaml:3:24: method.p: 2 is out of range, expected 0.1 to 1");
  EXPECT_EQ(error("beta: 0"), "j.yaml:3:27: method.beta: 0 is out of range, expected 0.01 to 1000000");
  EXPECT_EQ(error("beta_growth: 0.5"), "j.yaml:3:34: method.beta_growth: 0.5 is out of range, expected 1 to 10");
  EXPECT_EQ(error("iterations: 0"), "j.yaml:3:33: method.iterations: 0 is out of range, expected 1 to 1000");
}

TEST(HqqConfig, RefusesFormatsThatDoNotExist) {
  EXPECT_EQ(testing::error_of([] { HqqMethod{.linears = {.grid = "seq", .bits = 4}}.check(); }),
            "method.bits: grid seq has 2 bits, got 4; grid int has 2 to 8");
}

}  // namespace
}  // namespace crumb::ptq
