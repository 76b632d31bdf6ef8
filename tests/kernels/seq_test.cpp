#include "kernels/seq.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cfenv>
#include <cstring>
#include <limits>
#include <vector>

#include "core/common/rng.h"
#include "core/common/thread_pool.h"
#include "core/formats/dtype.h"

namespace crumb::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> normals(int64_t n, uint64_t stream, double sigma = 1.0) {
  const Rng rng(7, stream);
  std::vector<float> out(static_cast<size_t>(n));
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(sigma * rng.normal(i));
  return out;
}

std::vector<uint32_t> bits_of(const std::vector<float>& x) {
  std::vector<uint32_t> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    // Which NaN comes out of a sum of NaNs is the machine's choice.
    out[i] = std::isnan(x[i]) ? 0x7fc00000 : std::bit_cast<uint32_t>(x[i]);
  }
  return out;
}

struct Problem {
  int64_t rows, cols, group_size;
  std::vector<float> w, scale, grad;

  Problem(int64_t num_rows, int64_t num_cols, int64_t group_cols)
      : rows(num_rows),
        cols(num_cols),
        group_size(group_cols),
        w(normals(num_rows * num_cols, 1)),
        scale(normals(num_rows * num_cols / group_cols, 2, 0.3)),
        grad(normals(num_rows * num_cols, 3)) {
    for (auto& s : scale) s = std::exp(s);
  }
};

struct Result {
  std::vector<float> y, grad_w, grad_log_scale;
  std::vector<uint8_t> codes;
};

Result make_result(const Problem& p) {
  Result r;
  r.y.resize(p.w.size());
  r.grad_w.resize(p.w.size());
  r.codes.resize(p.w.size());
  r.grad_log_scale.resize(p.scale.size());
  return r;
}

Result run(const Problem& p, OutsideGradient outside, Isa isa, int threads) {
  ThreadPool pool(threads);
  Result r = make_result(p);
  seq_forward(p.w.data(), p.scale.data(), p.rows, p.cols, p.group_size, r.y.data(), r.codes.data(), pool, isa);
  seq_backward(p.w.data(), p.scale.data(), p.grad.data(), p.rows, p.cols, p.group_size, outside, r.grad_w.data(),
               r.grad_log_scale.data(), pool, isa);
  return r;
}

Result run_reference(const Problem& p, OutsideGradient outside) {
  Result r = make_result(p);
  reference::seq_forward(p.w.data(), p.scale.data(), p.rows, p.cols, p.group_size, r.y.data(), r.codes.data());
  reference::seq_backward(p.w.data(), p.scale.data(), p.grad.data(), p.rows, p.cols, p.group_size, outside,
                          r.grad_w.data(), r.grad_log_scale.data());
  return r;
}

void expect_same_bits(const Result& a, const Result& b) {
  EXPECT_EQ(bits_of(a.y), bits_of(b.y));
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(bits_of(a.grad_w), bits_of(b.grad_w));
  EXPECT_EQ(bits_of(a.grad_log_scale), bits_of(b.grad_log_scale));
}

/// Sums of float lanes: a block adds at most 128 numbers a lane, so the error is far below 128 ulp of the sum of
/// magnitudes.
void expect_near_reference(const Result& actual, const Result& reference, const Problem& p) {
  EXPECT_EQ(bits_of(actual.y), bits_of(reference.y));
  EXPECT_EQ(actual.codes, reference.codes);
  EXPECT_EQ(bits_of(actual.grad_w), bits_of(reference.grad_w));
  for (size_t g = 0; g < p.scale.size(); ++g) {
    double magnitude = 0;
    for (size_t i = g * static_cast<size_t>(p.group_size); i < (g + 1) * static_cast<size_t>(p.group_size); ++i)
      magnitude += std::fabs(p.grad[i]) * (std::fabs(p.w[i]) + std::fabs(reference.y[i]));
    EXPECT_NEAR(actual.grad_log_scale[g], reference.grad_log_scale[g], 1e-6 * magnitude) << "group " << g;
  }
}

// --- the definition
// ---------------------------------------------------------------------------------------------------

/// ParetoQ's released 2-bit definition in double, from its description: alpha is a row's learned scale, clip 0.99, two
/// levels a side, shift one half, rounding half to even.
struct ParetoQ {
  static constexpr double kClip = 0.99, kLevels = 2, kShift = 0.5;
  static double grid(double u) {
    const double clamped = std::clamp(u, -kClip, kClip);
    return (std::nearbyint(clamped * kLevels - kShift) + kShift) / kLevels;
  }
  static double forward(double w, double alpha) { return alpha * grid(w / alpha); }
  static double grad_w(double w, double alpha, double g) { return std::fabs(w / alpha) <= kClip ? g : 0; }
  /// Without the factor 1 / sqrt(numel).
  static double grad_alpha(double w, double alpha, double g) {
    const double u = w / alpha, outermost = (kLevels - kShift) / kLevels;
    if (u < -kClip) return -outermost * g;
    if (u > kClip) return outermost * g;
    return (grid(u) - u) * g;
  }
};

TEST(SeqDefinition, EqualsParetoQWithAlphaTwiceTheRoundedScale) {
  ASSERT_EQ(std::fegetround(), FE_TONEAREST);
  const Problem p(8, 512, 512);
  const Result r = run(p, OutsideGradient::zero, best_isa(), 1);
  int64_t outside = 0;
  for (int64_t row = 0; row < p.rows; ++row) {
    const double s = round_scale(p.scale[static_cast<size_t>(row)]), alpha = 2 * s;
    double grad_alpha = 0;
    for (int64_t col = 0; col < p.cols; ++col) {
      const auto i = static_cast<size_t>(row * p.cols + col);
      const double w = p.w[i], g = p.grad[i];
      ASSERT_GT(std::fabs(std::fabs(w) - 1.98 * s), 1e-6) << "the data must stay away from the edge of the range";
      EXPECT_EQ(r.y[i], ParetoQ::forward(w, alpha)) << "w = " << w << ", s = " << s;
      EXPECT_EQ(r.grad_w[i], ParetoQ::grad_w(w, alpha, g));
      grad_alpha += ParetoQ::grad_alpha(w, alpha, g);
      outside += std::fabs(w) > 1.98 * s;
    }
    // d ln s = d alpha / alpha
    EXPECT_NEAR(r.grad_log_scale[static_cast<size_t>(row)], alpha * grad_alpha, 1e-4) << "row " << row;
  }
  EXPECT_GT(outside, 50);
}

TEST(SeqDefinition, TiesFallAsInParetoQ) {
  for (const float s : {0.03125f, 0.5f, 1.0f, 1.5f}) {
    for (const float w : {-s, 0.0f, -0.0f, s})
      EXPECT_EQ(seq_level(seq_code(w, s), s), ParetoQ::forward(w, 2.0 * s)) << w;
  }
}

TEST(SeqDefinition, CodesOfTheFourIntervals) {
  const float s = 0.5f;
  const auto up = [](float x) { return std::nextafter(x, kInf); };
  const auto down = [](float x) { return std::nextafter(x, -kInf); };
  EXPECT_EQ(seq_code(-kInf, s), 0);
  EXPECT_EQ(seq_code(-s, s), 0);
  EXPECT_EQ(seq_code(up(-s), s), 1);
  EXPECT_EQ(seq_code(down(0.0f), s), 1);
  EXPECT_EQ(seq_code(-0.0f, s), 2);
  EXPECT_EQ(seq_code(0.0f, s), 2);
  EXPECT_EQ(seq_code(s, s), 2);
  EXPECT_EQ(seq_code(up(s), s), 3);
  EXPECT_EQ(seq_code(kInf, s), 3);
  EXPECT_EQ(seq_code(kNaN, s), 0);
}

// --- gradients
// --------------------------------------------------------------------------------------------------------

TEST(SeqBackward, StraightThroughPassesOutsideToo) {
  const Problem p(4, 256, 64);
  const Result zero = run(p, OutsideGradient::zero, best_isa(), 1), ste = run(p, OutsideGradient::ste, best_isa(), 1);
  EXPECT_EQ(ste.grad_w, p.grad);
  EXPECT_NE(zero.grad_w, p.grad);
  EXPECT_EQ(bits_of(zero.grad_log_scale), bits_of(ste.grad_log_scale));
}

TEST(SeqBackward, RangeIsClosedAt198) {
  const float s = 1.0f, edge = kSeqRange;
  const std::vector<float> w = {edge, -edge, std::nextafter(edge, kInf), std::nextafter(-edge, -kInf)},
                           g = {1, 1, 1, 1};
  std::vector<float> grad_w(4);
  float grad_log_scale = 0;
  seq_backward(w.data(), &s, g.data(), 1, 4, 4, OutsideGradient::zero, grad_w.data(), &grad_log_scale,
               serial_executor());
  EXPECT_EQ(grad_w, (std::vector<float>{1, 1, 0, 0}));
}

TEST(SeqBackward, GradientMayOverwriteItsInput) {
  const Problem p(3, 100, 50);
  const Result expected = run(p, OutsideGradient::zero, best_isa(), 1);
  std::vector<float> in_place = p.grad, grad_log_scale(p.scale.size());
  seq_backward(p.w.data(), p.scale.data(), in_place.data(), p.rows, p.cols, p.group_size, OutsideGradient::zero,
               in_place.data(), grad_log_scale.data(), serial_executor());
  EXPECT_EQ(in_place, expected.grad_w);
  EXPECT_EQ(grad_log_scale, expected.grad_log_scale);
}

// For a fixed w, y = level * s is linear in s as long as no code flips: by ln s its true slope is y. The
// straight-through slope adds the slope of the surrogate v = w / s, which is -w inside the range.
TEST(SeqBackward, GradientOfOutsideWeightsIsTheFiniteDifference) {
  const float s = 0.25f;
  const std::vector<float> w = {0.6f, -0.7f, 1.3f}, g = {0.5f, -2.0f, 1.0f};
  std::vector<float> grad_w(3);
  float grad_log_scale = 0;
  seq_backward(w.data(), &s, g.data(), 1, 3, 3, OutsideGradient::zero, grad_w.data(), &grad_log_scale,
               serial_executor());
  const auto loss = [&](double scale) {
    double sum = 0;
    for (size_t i = 0; i < w.size(); ++i)
      sum += static_cast<double>(g[i]) * (seq_code(w[i], static_cast<float>(scale)) - 1.5) * scale;
    return sum;
  };
  const double h = 1e-3, slope = (loss(s * std::exp(h)) - loss(s * std::exp(-h))) / (2 * h);
  EXPECT_NEAR(grad_log_scale, slope, 1e-5);
}

// --- paths
// ------------------------------------------------------------------------------------------------------------

struct Shape {
  int64_t rows, cols, group_size;
};
class SeqPaths : public ::testing::TestWithParam<Shape> {};

TEST_P(SeqPaths, GiveTheSameBitsOnEveryInstructionSetAndNumberOfThreads) {
  const auto [rows, cols, group_size] = GetParam();
  const Problem p(rows, cols, group_size);
  for (const auto outside : {OutsideGradient::zero, OutsideGradient::ste}) {
    const Result portable = run(p, outside, Isa::reference, 1);
    expect_near_reference(portable, run_reference(p, outside), p);
    expect_same_bits(portable, run(p, outside, Isa::reference, 2));
    for (const Isa isa : available_isas()) {
      expect_same_bits(portable, run(p, outside, isa, 1));
      expect_same_bits(portable, run(p, outside, isa, 2));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, SeqPaths,
                         ::testing::Values(Shape{1, 1, 1}, Shape{3, 7, 7}, Shape{5, 8, 8}, Shape{2, 9, 3},
                                           Shape{4, 172, 172}, Shape{33, 64, 32}, Shape{2, 1024, 1024},
                                           Shape{3, 1029, 1029}, Shape{64, 2050, 2050}, Shape{7, 4096, 128}));

TEST(SeqPathsSpecial, NanInfinitiesZerosAndDenormals) {
  Problem p(2, 20, 20);
  const std::vector<float> special = {kNaN, -kNaN, kInf, -kInf, 0.0f, -0.0f, 1e-40f, -1e-40f, 3e38f, -3e38f};
  std::copy(special.begin(), special.end(), p.w.begin() + 3);
  p.scale = {1.0f, kNaN};
  p.grad[25] = 0.0f;
  const Result portable = run(p, OutsideGradient::zero, Isa::reference, 1);
  EXPECT_TRUE(std::isnan(portable.y[3])) << "a NaN weight must not hide behind a level";
  EXPECT_TRUE(std::isnan(portable.grad_log_scale[0]));
  EXPECT_EQ(portable.grad_w[3], 0.0f);
  EXPECT_EQ(portable.y[5], 1.5f);
  EXPECT_EQ(portable.y[6], -1.5f);
  EXPECT_EQ(portable.y[9], 0.5f);  // 1e-40
  EXPECT_EQ(portable.y[10], -0.5f);
  for (const Isa isa : available_isas()) expect_same_bits(portable, run(p, OutsideGradient::zero, isa, 1));
}

TEST(SeqPathsSpecial, CodesAloneAndLevelsAlone) {
  const Problem p(3, 70, 35);
  const Result both = run(p, OutsideGradient::zero, best_isa(), 1);
  std::vector<float> y(p.w.size());
  std::vector<uint8_t> codes(p.w.size());
  seq_forward(p.w.data(), p.scale.data(), p.rows, p.cols, p.group_size, y.data(), nullptr, serial_executor());
  seq_forward(p.w.data(), p.scale.data(), p.rows, p.cols, p.group_size, nullptr, codes.data(), serial_executor());
  EXPECT_EQ(y, both.y);
  EXPECT_EQ(codes, both.codes);
}

// --- scales
// -----------------------------------------------------------------------------------------------------------

/// All of them, ascending: 32 an octave.
std::vector<float> representable_scales() {
  std::vector<float> out;
  for (int exponent = -17; exponent < 14; ++exponent) {
    for (int mantissa = 32; mantissa < 64; ++mantissa)
      out.push_back(std::ldexp(static_cast<float>(mantissa), exponent - 5));
  }
  out.push_back(kMaxScale);
  return out;
}

TEST(RoundScale, KeepsEveryRepresentableScaleAndTakesTheNearestBetween) {
  const auto scales = representable_scales();
  EXPECT_EQ(scales.front(), kMinScale);
  for (size_t i = 0; i < scales.size(); ++i) {
    EXPECT_EQ(round_scale(scales[i]), scales[i]);
    if (i + 1 == scales.size()) break;
    const float low = scales[i], high = scales[i + 1], middle = 0.5f * (low + high);
    EXPECT_EQ(round_scale(std::nextafter(middle, 0.0f)), low);
    EXPECT_EQ(round_scale(middle), high);
    EXPECT_EQ(round_scale(std::nextafter(high, 0.0f)), high);
  }
}

TEST(RoundScale, ClampsWhatCannotBeAScale) {
  for (const float s : {0.0f, -0.0f, -1.0f, 1e-40f, 7e-6f, kNaN, -kInf}) EXPECT_EQ(round_scale(s), kMinScale) << s;
  for (const float s : {16384.0f, 16385.0f, 1e30f, kInf}) EXPECT_EQ(round_scale(s), kMaxScale) << s;
}

TEST(RoundScale, LeavesLevelsExactInHalfAndBfloat16) {
  for (const float s : representable_scales()) {
    for (const float factor : {0.5f, 1.0f, 1.5f}) {
      const float value = factor * s;
      EXPECT_EQ(static_cast<double>(value), static_cast<double>(factor) * s);
      EXPECT_EQ(from_f16(to_f16(value)), value);
      EXPECT_EQ(formats::round_to_bf16(value), value);
    }
  }
}

}  // namespace
}  // namespace crumb::kernels
