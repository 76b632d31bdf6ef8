// rms_norm, rope and swiglu of every instruction set beside their formulas in double precision.
#include <gtest/gtest.h>

#include "core/common/thread_pool.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"
#include "tests/kernels/isa_cases.h"

namespace crumb::kernels {
namespace {

using testing::converted;
using testing::half_ulp;
using testing::normal_values;
using testing::value_of;

constexpr float kEps = 1e-5f;
/// Of float arithmetic, in units of the result's magnitude: a handful of roundings.
constexpr double kRounding = 6 * 0x1.0p-24;

/// What is added to magnitudes so that 1e-34 is allowed at least.
constexpr double kSmallest = 1e-34 / kRounding;

class Elementwise : public ::testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Paths, Elementwise, ::testing::ValuesIn(testing::isas()), testing::isa_label);

/// |actual - expected| <= rounding * magnitude and half a unit of the stored type.
template <class T>
void expect_near(T actual, double expected, double magnitude, double rounding, int64_t index) {
  ASSERT_NEAR(value_of(actual), expected, rounding * magnitude + half_ulp(T{}, expected)) << "value " << index;
}

struct NormShape {
  int64_t rows, cols;
};
constexpr NormShape kNormShapes[] = {{1, 1}, {3, 5}, {2, 8}, {5, 16}, {2, 31}, {200, 64}, {3, 577}, {130, 2048}};

double inverse_rms(const std::vector<double>& row) {
  double squares = 0;
  for (const double x : row) squares += x * x;
  return 1.0 / std::sqrt(squares / static_cast<double>(row.size()) + kEps);
}

template <class T>
std::vector<double> row_of(const std::vector<T>& x, int64_t row, int64_t cols) {
  std::vector<double> out;
  for (int64_t i = row * cols; i < (row + 1) * cols; ++i) out.push_back(value_of(x[static_cast<size_t>(i)]));
  return out;
}

template <class In, class Out>
void expect_rms_norm(Isa isa, NormShape shape) {
  const auto [rows, cols] = shape;
  const auto x = converted(normal_values(rows * cols, 1, 3.0), In{});
  const auto weight = normal_values(cols, 2), grad_values = normal_values(rows * cols, 3);
  const auto grad_y = converted(grad_values, Out{});
  std::vector<Out> y(x.size());
  std::vector<In> grad_x(x.size());
  std::vector<float> grad_weight(weight.size());
  ThreadPool pool(2);
  rms_norm_forward(x.data(), weight.data(), kEps, rows, cols, y.data(), pool, isa);
  rms_norm_backward(x.data(), weight.data(), grad_y.data(), kEps, rows, cols, grad_x.data(), grad_weight.data(), pool,
                    isa);
  // The sums of `cols` squares and products are made in lanes: their error grows with the roundings of one lane.
  const double rounding = kRounding + static_cast<double>(cols / 8) * 0x1.0p-24;
  std::vector<double> weight_sums(weight.size(), 0.0), weight_magnitudes(weight.size(), 0.0);
  for (int64_t r = 0; r < rows; ++r) {
    const auto in = row_of(x, r, cols), g = row_of(grad_y, r, cols);
    const double inverse = inverse_rms(in);
    double pull = 0, pull_magnitude = 0;
    for (size_t i = 0; i < in.size(); ++i) {
      pull += in[i] * g[i] * weight[i] * inverse * inverse / static_cast<double>(cols);
      pull_magnitude += std::abs(in[i] * g[i] * weight[i]) * inverse * inverse / static_cast<double>(cols);
    }
    for (size_t i = 0; i < in.size(); ++i) {
      const auto at = static_cast<size_t>(r * cols) + i;
      const double expected = in[i] * inverse * weight[i];
      expect_near(y[at], expected, std::abs(expected), rounding, static_cast<int64_t>(at));
      const double gradient = (g[i] * weight[i] - in[i] * pull) * inverse;
      const double magnitude = (std::abs(g[i] * weight[i]) + std::abs(in[i]) * pull_magnitude) * inverse;
      expect_near(grad_x[at], gradient, magnitude, rounding, static_cast<int64_t>(at));
      weight_sums[i] += g[i] * in[i] * inverse;
      weight_magnitudes[i] += std::abs(g[i] * in[i] * inverse);
    }
  }
  for (size_t i = 0; i < weight.size(); ++i)
    expect_near(grad_weight[i], weight_sums[i], weight_magnitudes[i], rounding + 64 * 0x1.0p-24,
                static_cast<int64_t>(i));
}

TEST_P(Elementwise, RmsNormIsItsFormulaInDoublePrecision) {
  for (const auto& shape : kNormShapes) {
    expect_rms_norm<float, float>(GetParam(), shape);
    expect_rms_norm<float, Bf16>(GetParam(), shape);
    expect_rms_norm<Bf16, Bf16>(GetParam(), shape);
  }
}

TEST_P(Elementwise, RmsNormBackwardDoesWithoutTheWeightsGradient) {
  const auto x = normal_values(6, 1), weight = normal_values(3, 2), grad_y = normal_values(6, 3);
  std::vector<float> with(6), without(6), grad_weight(3);
  rms_norm_backward(x.data(), weight.data(), grad_y.data(), kEps, 2, 3, with.data(), grad_weight.data(),
                    serial_executor(), GetParam());
  rms_norm_backward<float, float>(x.data(), weight.data(), grad_y.data(), kEps, 2, 3, without.data(), nullptr,
                                  serial_executor(), GetParam());
  EXPECT_EQ(with, without);
}

template <class T>
void expect_rope(Isa isa, int64_t half, int64_t head_dim, bool inverse) {
  constexpr int64_t kBatch = 2, kTokens = 3, kHeads = 2;
  const auto x = converted(normal_values(kBatch * kTokens * kHeads * head_dim, 1), T{});
  std::vector<float> cos, sin;
  for (const float angle : normal_values(kTokens * half, 2, 2.0)) {
    cos.push_back(std::cos(angle));
    sin.push_back(std::sin(angle));
  }
  std::vector<T> y(x.size());
  rope(x.data(), cos.data(), sin.data(), kBatch, kTokens, kHeads, head_dim, half, inverse, y.data(), serial_executor(),
       isa);
  for (int64_t at = 0; at < static_cast<int64_t>(x.size()); ++at) {
    const int64_t i = at % head_dim, token = at / (head_dim * kHeads) % kTokens;
    const auto value = [&](int64_t index) { return value_of(x[static_cast<size_t>(index)]); };
    if (i >= 2 * half) {
      ASSERT_EQ(value_of(y[static_cast<size_t>(at)]), value(at)) << "beyond the rotated part";
      continue;
    }
    const auto angle = static_cast<size_t>(token * half + i % half);
    const double c = cos[angle], s = inverse ? -sin[angle] : sin[angle];
    const double first = value(i < half ? at : at - half), second = value(i < half ? at + half : at);
    const double expected = i < half ? first * c - second * s : second * c + first * s;
    expect_near(y[static_cast<size_t>(at)], expected, std::abs(first) + std::abs(second), kRounding, at);
  }
  std::vector<T> in_place = x;
  rope(in_place.data(), cos.data(), sin.data(), kBatch, kTokens, kHeads, head_dim, half, inverse, in_place.data(),
       serial_executor(), isa);
  for (size_t i = 0; i < y.size(); ++i) ASSERT_EQ(value_of(in_place[i]), value_of(y[i])) << "in place, value " << i;
}

TEST_P(Elementwise, RopeTurnsPairsAsInDoublePrecision) {
  for (const bool inverse : {false, true}) {
    for (const int64_t half : {1, 4, 8, 13, 16, 32, 64}) {
      expect_rope<float>(GetParam(), half, 2 * half, inverse);
      expect_rope<float>(GetParam(), half, 2 * half + 3, inverse);
      expect_rope<Bf16>(GetParam(), half, 2 * half, inverse);
    }
  }
}

template <class T>
void expect_swiglu(Isa isa, int64_t n, double sigma) {
  const auto gate = converted(normal_values(n, 1, sigma), T{}), up = converted(normal_values(n, 2), T{}),
             grad_y = converted(normal_values(n, 3), T{});
  std::vector<T> y(gate.size()), grad_gate(gate.size()), grad_up(gate.size());
  ThreadPool pool(2);
  swiglu_forward(gate.data(), up.data(), n, y.data(), pool, isa);
  swiglu_backward(gate.data(), up.data(), grad_y.data(), n, grad_gate.data(), grad_up.data(), pool, isa);
  for (int64_t at = 0; at < n; ++at) {
    const auto i = static_cast<size_t>(at);
    const double g = value_of(gate[i]), u = value_of(up[i]), d = value_of(grad_y[i]), s = 1.0 / (1.0 + std::exp(-g));
    // e^-g ends at e^88: beyond it silu is below 1e-34 and only that is promised.
    expect_near(y[i], g * s * u, std::abs(g * s * u) + kSmallest, kRounding, at);
    expect_near(grad_up[i], d * g * s, std::abs(d * g * s) + kSmallest, kRounding, at);
    const double slope = d * u * s * (1.0 + g * (1.0 - s));
    expect_near(grad_gate[i], slope, std::abs(d * u * s) * (1.0 + std::abs(g)) + kSmallest, kRounding, at);
  }
}

TEST_P(Elementwise, SwigluIsItsFormulaInDoublePrecision) {
  for (const int64_t n : {1, 7, 8, 9, 16, 17, 1000, 20001}) {
    expect_swiglu<float>(GetParam(), n, 2.0);
    expect_swiglu<Bf16>(GetParam(), n, 2.0);
  }
  expect_swiglu<float>(GetParam(), 1000, 60.0);
}

}  // namespace
}  // namespace crumb::kernels
