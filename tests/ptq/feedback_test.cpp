#include "ptq/feedback.h"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>
#include <numeric>

#include "core/common/rng.h"
#include "core/common/thread_pool.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

using quant::Grid;
using quant::QuantFormat;

struct Problem {
  int64_t rows, cols;
  std::vector<float> w, gram;
};

/// Correlated inputs of very different energy, some of them never used.
Problem make_problem(int64_t rows, int64_t cols, int64_t tokens, uint64_t seed, int64_t dead = 0) {
  Problem p{rows, cols, {}, {}};
  const Rng rng(seed, 1);
  for (int64_t i = 0; i < rows * cols; ++i)
    p.w.push_back(static_cast<float>(0.05 * rng.normal(static_cast<uint64_t>(i))));
  const Rng inputs(seed, 2);
  Eigen::MatrixXd x(tokens, cols);
  for (int64_t t = 0; t < tokens; ++t) {
    double shared = 0;
    for (int64_t i = 0; i < cols; ++i) {
      shared = 0.8 * shared + inputs.normal(static_cast<uint64_t>(t * cols + i));
      x(t, i) = i < dead ? 0 : shared * std::pow(1.03, static_cast<double>(i * 7 % cols));
    }
  }
  const Eigen::MatrixXd gram = x.transpose() * x / static_cast<double>(tokens);
  for (int64_t i = 0; i < cols * cols; ++i) p.gram.push_back(static_cast<float>(gram(i / cols, i % cols)));
  return p;
}

double loss(const Problem& p, const quant::QuantizedTensor& codes) {
  std::vector<float> q(p.w.size());
  codes.dequantize(q.data());
  double sum = 0;
  for (int64_t row = 0; row < p.rows; ++row) {
    for (int64_t i = 0; i < p.cols; ++i) {
      for (int64_t j = 0; j < p.cols; ++j) {
        const auto a = static_cast<size_t>(row * p.cols + i), b = static_cast<size_t>(row * p.cols + j);
        sum += (p.w[a] - q[a]) * static_cast<double>(p.gram[static_cast<size_t>(i * p.cols + j)]) * (p.w[b] - q[b]);
      }
    }
  }
  return sum;
}

/// GPTQ as its paper has it, in double and O(n^3) for each column: the inverse of the Gram matrix of the columns that
/// are left is made anew, the error of a column divided by its diagonal is taken from all that follow.
struct Reference {
  std::vector<uint8_t> codes;
  std::vector<double> targets;
};
Reference gptq_by_the_book(const Problem& p, const QuantFormat& format, const quant::QuantizedTensor& scales,
                           const FeedbackOptions& options) {
  const int64_t n = p.cols, group_cols = format.group_cols(n);
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  const auto at = [&](int64_t i, int64_t j) { return static_cast<double>(p.gram[static_cast<size_t>(i * n + j)]); };
  if (options.act_order)
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return at(a, a) > at(b, b); });
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += at(i, i) / static_cast<double>(n);
  Reference out{std::vector<uint8_t>(p.w.size()), std::vector<double>(p.w.begin(), p.w.end())};
  const std::vector<float> levels = format.levels();
  for (int64_t done = 0; done < n; ++done) {
    Eigen::MatrixXd left(n - done, n - done);
    for (int64_t a = done; a < n; ++a) {
      for (int64_t b = done; b < n; ++b)
        left(a - done, b - done) =
            at(order[static_cast<size_t>(a)], order[static_cast<size_t>(b)]) + (a == b ? options.damping * mean : 0) +
            (a == b && at(order[static_cast<size_t>(a)], order[static_cast<size_t>(a)]) == 0 ? 1 : 0);
    }
    const Eigen::MatrixXd inverse = left.inverse();
    const int64_t col = order[static_cast<size_t>(done)];
    for (int64_t row = 0; row < p.rows; ++row) {
      const auto place = static_cast<size_t>(row * n + col);
      const quant::GroupScale scale = scales.group(place / static_cast<size_t>(group_cols));
      const auto target = static_cast<float>(out.targets[place]);
      format.grid->nearest_codes(&target, 1, format, scale, &out.codes[place]);
      const double zero = format.has_zero_points() ? scale.zero_point : 0;
      const double error = out.targets[place] - (levels[out.codes[place]] - zero) * scale.scale;
      for (int64_t k = done + 1; k < n; ++k)
        out.targets[static_cast<size_t>(row * n + order[static_cast<size_t>(k)])] -=
            error / inverse(0, 0) * inverse(0, k - done);
    }
  }
  return out;
}

struct Case {
  QuantFormat format;
  bool act_order;
};
class Feedback : public ::testing::TestWithParam<Case> {};

TEST_P(Feedback, IsGptqByTheBook) {
  const auto& [format, act_order] = GetParam();
  const FeedbackOptions options{.damping = 0.01, .act_order = act_order};
  const Problem p = make_problem(5, 192, 300, 3, 4);
  const FeedbackFactor factor(p.gram.data(), p.cols, options);
  EXPECT_EQ(factor.dead_columns(), 4);
  const FeedbackResult result = round_with_feedback(p.w.data(), p.rows, factor, format, options, serial_executor());
  const Reference expected = gptq_by_the_book(p, format, result.codes, options);
  // Targets differ by float rounding; where one lies on a boundary its code may differ, and what follows with it. None
  // does here.
  EXPECT_EQ(result.codes.codes, expected.codes);
  for (size_t i = 0; i < p.w.size(); ++i) EXPECT_NEAR(result.targets[i], expected.targets[i], 2e-5) << i;
  // scales: those of least weighted error of the weights as they are
  const auto scales = quant::find_scales(p.w.data(), p.rows, p.cols, format, options.init, factor.importance().data());
  EXPECT_EQ(result.codes.scales, scales.scales);
  EXPECT_EQ(result.codes.zero_points, scales.zero_points);
}

INSTANTIATE_TEST_SUITE_P(Formats, Feedback,
                         ::testing::Values(Case{{}, true}, Case{{}, false}, Case{{.group_size = 32}, true},
                                           Case{{Grid::intn, 4, true, 64}, true},
                                           Case{{Grid::intn, 3, false, 48}, true},
                                           Case{{Grid::intn, 2, true, 0}, false},
                                           Case{{Grid::intn, 8, true, 0}, true}));

TEST(FeedbackRounding, LosesFarLessThanRoundingToNearest) {
  const Problem p = make_problem(16, 160, 400, 5);
  for (const QuantFormat& format : {QuantFormat{}, QuantFormat{Grid::intn, 4, true, 32}}) {
    const FeedbackOptions options;
    const FeedbackFactor factor(p.gram.data(), p.cols, options);
    const auto feedback = round_with_feedback(p.w.data(), p.rows, factor, format, options, serial_executor());
    const auto nearest = quant::round_to_nearest(p.w.data(), p.rows, p.cols, format, options.init);
    EXPECT_LT(loss(p, feedback.codes), 0.5 * loss(p, nearest)) << format.title();
  }
}

TEST(FeedbackRounding, ScalesOfTargetsAreThoseOfTheGroupWhenItsTurnComes) {
  const Problem p = make_problem(3, 128, 200, 7);
  const QuantFormat format{Grid::intn, 3, true, 32};
  const FeedbackOptions options{.act_order = false, .static_scales = false};
  const FeedbackFactor factor(p.gram.data(), p.cols, options);
  const auto result = round_with_feedback(p.w.data(), p.rows, factor, format, options, serial_executor());
  const Reference book = gptq_by_the_book(p, format, result.codes, options);
  EXPECT_EQ(result.codes.codes, book.codes);
  // the first group's come from the weights, the second's no more
  const auto fixed = quant::find_scales(p.w.data(), p.rows, p.cols, format, options.init, factor.importance().data());
  int same = 0;
  for (size_t i = 0; i < fixed.scales.size(); ++i) {
    if (i % 4 == 0) {
      EXPECT_EQ(result.codes.scales[i], fixed.scales[i]);
    }
    same += result.codes.scales[i] == fixed.scales[i] ? 1 : 0;
  }
  EXPECT_LT(same, 9);
}

// The group of a whole row comes first of all: its scale is that of the weights, however they are asked for.
TEST(FeedbackRounding, ScalesOfWholeRowsAreThoseOfTheWeights) {
  const Problem p = make_problem(3, 200, 300, 8);
  const FeedbackOptions fixed{.act_order = false}, in_turn{.act_order = false, .static_scales = false};
  const FeedbackFactor factor(p.gram.data(), p.cols, fixed);
  const auto a = round_with_feedback(p.w.data(), p.rows, factor, {}, fixed, serial_executor());
  const auto b = round_with_feedback(p.w.data(), p.rows, factor, {}, in_turn, serial_executor());
  EXPECT_EQ(a.codes.scales, b.codes.scales);
  EXPECT_EQ(a.codes.codes, b.codes.codes);
}

TEST(FeedbackRounding, DoesNotDependOnThreads) {
  const Problem p = make_problem(333, 96, 200, 9);
  const FeedbackOptions options;
  const FeedbackFactor factor(p.gram.data(), p.cols, options);
  ThreadPool pool(3);
  const auto one = round_with_feedback(p.w.data(), p.rows, factor, {}, options, serial_executor());
  const auto three = round_with_feedback(p.w.data(), p.rows, factor, {}, options, pool);
  EXPECT_EQ(one.codes.codes, three.codes.codes);
  EXPECT_EQ(one.targets, three.targets);
}

// More columns than tokens, no damping asked for: the matrix is singular.
TEST(FeedbackRounding, SingularInputsGetTheDampingTheyNeed) {
  const Problem p = make_problem(4, 96, 20, 11);
  const FeedbackOptions options{.damping = 0};
  const FeedbackFactor factor(p.gram.data(), p.cols, options);
  EXPECT_GT(factor.damping(), 0);
  const auto result = round_with_feedback(p.w.data(), p.rows, factor, {}, options, serial_executor());
  for (const float target : result.targets) EXPECT_TRUE(std::isfinite(target));
}

TEST(FeedbackRounding, NoInputAtAllIsRoundingToNearest) {
  Problem p = make_problem(4, 64, 20, 13);
  std::fill(p.gram.begin(), p.gram.end(), 0.0f);
  const FeedbackOptions options;
  const FeedbackFactor factor(p.gram.data(), p.cols, options);
  EXPECT_EQ(factor.dead_columns(), 64);
  const auto result = round_with_feedback(p.w.data(), p.rows, factor, {}, options, serial_executor());
  const auto nearest = quant::round_to_nearest(p.w.data(), p.rows, p.cols, {}, options.init);
  EXPECT_EQ(result.codes.codes, nearest.codes);
  EXPECT_EQ(result.codes.scales, nearest.scales);
}

}  // namespace
}  // namespace crumb::ptq
