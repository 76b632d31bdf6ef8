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
/// are left is made anew, the error of a column divided by its diagonal is taken from all that follow. Pruning as its
/// paper has it: of every 128 columns, or the neighbours of a pattern, those of least target^2 / [inverse]_ii become 0
/// in each row when the first of them comes.
struct Reference {
  std::vector<uint8_t> codes;
  std::vector<double> targets;
  std::vector<uint8_t> mask;
  std::vector<float> in_turn;  // what every weight was when the first of its group came, columns as they stand
};
Reference gptq_by_the_book(const Problem& p, const QuantFormat& format, const quant::QuantizedTensor& scales,
                           const FeedbackOptions& options) {
  const int64_t n = p.cols, group_cols = format.group_cols(n);
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  const auto at = [&](int64_t i, int64_t j) { return static_cast<double>(p.gram[static_cast<size_t>(i * n + j)]); };
  const Sparsity& sparsity = options.sparsity;
  const int64_t neighbours = std::max<int64_t>(1, sparsity.of), together = sparsity.of > 0 ? sparsity.of : 128;
  const auto energy = [&](int64_t i) {
    double sum = 0;
    for (int64_t k = i / neighbours * neighbours, end = k + neighbours; k < end; ++k) sum += at(k, k);
    return sum;
  };
  if (options.act_order)
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return energy(a) > energy(b); });
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += at(i, i) / static_cast<double>(n);
  Reference out{std::vector<uint8_t>(p.w.size()), std::vector<double>(p.w.begin(), p.w.end()),
                std::vector<uint8_t>(p.w.size(), 1), std::vector<float>(p.w.size())};
  const std::vector<float> levels = format.levels();
  const auto inverse_of = [&](int64_t done) -> Eigen::MatrixXd {
    Eigen::MatrixXd left(n - done, n - done);
    for (int64_t a = done; a < n; ++a) {
      for (int64_t b = done; b < n; ++b)
        left(a - done, b - done) =
            at(order[static_cast<size_t>(a)], order[static_cast<size_t>(b)]) + (a == b ? options.damping * mean : 0) +
            (a == b && at(order[static_cast<size_t>(a)], order[static_cast<size_t>(a)]) == 0 ? 1 : 0);
    }
    return left.inverse();
  };
  std::vector<double> losses(static_cast<size_t>(n));  // of pruning a target of 1
  for (int64_t i = 0; i < n && sparsity.prunes(); ++i) {
    const int64_t col = order[static_cast<size_t>(i)];
    losses[static_cast<size_t>(i)] = at(col, col) == 0 ? 0 : 1 / inverse_of(i)(0, 0);
  }
  const auto choose = [&](int64_t row, int64_t first, int64_t end) {
    std::vector<int64_t> places;
    for (int64_t i = first; i < end; ++i) places.push_back(i);
    const auto score = [&](int64_t i) {
      const double target = out.targets[static_cast<size_t>(row * n + order[static_cast<size_t>(i)])];
      return target * target * losses[static_cast<size_t>(i)];
    };
    std::stable_sort(places.begin(), places.end(), [&](int64_t a, int64_t b) { return score(a) < score(b); });
    for (int64_t i = 0; i < sparsity.pruned_of(end) - sparsity.pruned_of(first); ++i)
      out.mask[static_cast<size_t>(row * n + order[static_cast<size_t>(places[static_cast<size_t>(i)])])] = 0;
  };
  for (int64_t done = 0; done < n; ++done) {
    if (sparsity.prunes() && done % together == 0) {
      for (int64_t row = 0; row < p.rows; ++row) choose(row, done, std::min(done + together, n));
    }
    if (!options.act_order && done % group_cols == 0) {
      for (int64_t row = 0; row < p.rows; ++row) {
        for (int64_t col = done; col < done + group_cols; ++col) {
          const auto place = static_cast<size_t>(row * n + col);
          out.in_turn[place] = static_cast<float>(out.targets[place]);
        }
      }
    }
    const Eigen::MatrixXd inverse = inverse_of(done);
    const int64_t col = order[static_cast<size_t>(done)];
    for (int64_t row = 0; row < p.rows; ++row) {
      const auto place = static_cast<size_t>(row * n + col);
      const quant::GroupScale scale = scales.group(place / static_cast<size_t>(group_cols));
      const auto target = out.mask[place] != 0 ? static_cast<float>(out.targets[place]) : 0.0f;
      format.grid->nearest_codes(&target, 1, format, scale, &out.codes[place]);
      const double zero = format.has_zero_points() ? scale.zero_point : 0,
                   minimum = format.has_minima ? scale.minimum : 0;
      const double error = out.targets[place] - ((levels[out.codes[place]] - zero) * scale.scale + minimum);
      if (out.mask[place] == 0) out.targets[place] = 0;
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
  EXPECT_EQ(result.codes.minima, scales.minima);
}

INSTANTIATE_TEST_SUITE_P(Formats, Feedback,
                         ::testing::Values(Case{{}, true}, Case{{}, false}, Case{{.group_size = 32}, true},
                                           Case{{Grid::intn, 4, true, 64}, true},
                                           Case{{Grid::intn, 3, false, 48}, true},
                                           Case{{Grid::intn, 4, false, 32, false, true}, true},
                                           Case{{Grid::intn, 2, false, 0, false, true}, false},
                                           Case{{Grid::intn, 2, true, 0}, false},
                                           Case{{Grid::intn, 8, true, 0}, true}));

struct PrunedCase {
  QuantFormat format;
  Sparsity sparsity;
  bool act_order = true;
};
class PrunedFeedback : public ::testing::TestWithParam<PrunedCase> {};

TEST_P(PrunedFeedback, IsSparseGptByTheBook) {
  const auto& [format, sparsity, act_order] = GetParam();
  const FeedbackOptions options{.damping = 0.01, .act_order = act_order, .sparsity = sparsity};
  const Problem p = make_problem(5, 192, 300, 3, 4);
  const FeedbackFactor factor(p.gram.data(), p.cols, options);
  const FeedbackResult result = round_with_feedback(p.w.data(), p.rows, factor, format, options, serial_executor());
  const Reference expected = gptq_by_the_book(p, format, result.codes, options);
  EXPECT_EQ(result.codes.mask, expected.mask);
  EXPECT_EQ(result.codes.codes, expected.codes);
  for (size_t i = 0; i < p.w.size(); ++i) EXPECT_NEAR(result.targets[i], expected.targets[i], 2e-5) << i;
  EXPECT_EQ(result.codes.find_broken_mask(), -1);
  for (int64_t row = 0; row < p.rows; ++row) {
    const auto begin = result.codes.mask.begin() + row * p.cols;
    EXPECT_EQ(std::count(begin, begin + p.cols, 0), sparsity.pruned_of(p.cols));
    if (sparsity.of > 0) {
      for (int64_t i = 0; i < p.cols; i += sparsity.of)
        EXPECT_EQ(std::count(begin + i, begin + i + sparsity.of, 1), sparsity.stay) << row << " " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, PrunedFeedback,
                         ::testing::Values(PrunedCase{{Grid::intn, 8, true, 0, true}, {.share = 0.5}},
                                           PrunedCase{{Grid::intn, 4, true, 64, true}, {.share = 0.37}},
                                           PrunedCase{{Grid::intn, 4, true, 32, true}, {.stay = 2, .of = 4}},
                                           PrunedCase{{Grid::intn, 4, false, 48, true}, {.stay = 5, .of = 12}},
                                           PrunedCase{{Grid::intn, 3, false, 0, true}, {.share = 0.5}, false},
                                           PrunedCase{{Grid::fp8, 8, true, 0, true}, {.stay = 1, .of = 3}, false},
                                           PrunedCase{{Grid::ternary, 2, true, 0, true}, {.share = 0.3}}));

// What is pruned beforehand is made up for just so.
TEST(FeedbackRounding, MakesUpForWeightsThatAreGone) {
  const Problem p = make_problem(16, 160, 400, 5);
  const QuantFormat format{Grid::intn, 8, true, 0, true};
  const FeedbackOptions fixed, in_turn{.act_order = false, .static_scales = false};
  const auto mask = choose_mask(p.w.data(), p.rows, p.cols, nullptr, {.share = 0.5});
  quant::QuantizedTensor nearest =
      quant::round_to_nearest(masked(p.w.data(), mask).data(), p.rows, p.cols, format, fixed.init);
  for (const FeedbackOptions& options : {fixed, in_turn}) {
    const FeedbackFactor factor(p.gram.data(), p.cols, options);
    const auto result = round_with_feedback(p.w.data(), p.rows, factor, format, options, serial_executor(), mask);
    EXPECT_EQ(result.codes.mask, mask);
    EXPECT_EQ(result.codes.find_broken_mask(), -1);
    EXPECT_LT(loss(p, result.codes), 0.7 * loss(p, nearest));
    FeedbackOptions joint = fixed;
    joint.sparsity.share = 0.5;
    const FeedbackFactor of_joint(p.gram.data(), p.cols, joint);
    const auto chosen = round_with_feedback(p.w.data(), p.rows, of_joint, format, joint, serial_executor());
    EXPECT_LT(loss(p, chosen.codes), 0.9 * loss(p, result.codes));
  }
}

// The first choice may take out the whole of a small group of which in the end something stays.
TEST(FeedbackRounding, ScalesOfWhatStaysAreNeverThoseOfNothing) {
  const Problem p = make_problem(64, 256, 300, 15);  // more than a block, whose choice is the first one
  const QuantFormat format{Grid::intn, 8, true, 2, true};
  const FeedbackOptions options{.sparsity = {.share = 0.6}};
  const FeedbackFactor factor(p.gram.data(), p.cols, options);
  const auto result = round_with_feedback(p.w.data(), p.rows, factor, format, options, serial_executor());
  const auto kept = masked(result.targets.data(), result.codes.mask);
  EXPECT_EQ(quant::count_clamped(kept.data(), result.codes.scales.data(), p.rows, p.cols, result.codes.format), 0);
}

TEST(FeedbackRounding, PruningDoesNotDependOnThreads) {
  const Problem p = make_problem(200, 96, 200, 9);
  for (const Sparsity& sparsity : {Sparsity{.share = 0.5}, Sparsity{.stay = 2, .of = 4}}) {
    const FeedbackOptions options{.sparsity = sparsity};
    const FeedbackFactor factor(p.gram.data(), p.cols, options);
    const QuantFormat format{Grid::intn, 4, true, 32, true};
    ThreadPool pool(3);
    const auto one = round_with_feedback(p.w.data(), p.rows, factor, format, options, serial_executor());
    const auto three = round_with_feedback(p.w.data(), p.rows, factor, format, options, pool);
    EXPECT_EQ(one.codes.mask, three.codes.mask);
    EXPECT_EQ(one.codes.codes, three.codes.codes);
  }
}

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
  const auto in_turn =
      quant::find_scales(book.in_turn.data(), p.rows, p.cols, format, options.init, factor.importance().data());
  EXPECT_EQ(result.codes.scales, in_turn.scales);
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

TEST(FeedbackFactor, SolvesWithTheDampedMatrix) {
  for (const bool act_order : {true, false}) {
    const Problem p = make_problem(70, 96, 300, 5, 3);  // rows of two chunks; three columns that nothing moves
    const FeedbackOptions options{.damping = 0.02, .act_order = act_order};
    const FeedbackFactor factor(p.gram.data(), p.cols, options);
    Eigen::MatrixXd b(p.rows, p.cols), damped(p.cols, p.cols);
    for (int64_t i = 0; i < p.rows * p.cols; ++i) b(i / p.cols, i % p.cols) = p.w[static_cast<size_t>(i)];
    for (int64_t i = 0; i < p.cols * p.cols; ++i) damped(i / p.cols, i % p.cols) = p.gram[static_cast<size_t>(i)];
    damped.diagonal().array() += 0.02 * damped.diagonal().mean();
    const Eigen::MatrixXd expected = b * damped.inverse();
    const std::vector<float> x = factor.solve(p.w.data(), p.rows, serial_executor());
    const double size = expected.rightCols(p.cols - 3).cwiseAbs().maxCoeff();
    for (int64_t i = 0; i < p.rows * p.cols; ++i) {
      const double exact = i % p.cols < 3 ? 0 : expected(i / p.cols, i % p.cols);
      ASSERT_NEAR(x[static_cast<size_t>(i)], exact, 2e-4 * size) << i;
    }
    ThreadPool pool(3);
    EXPECT_EQ(factor.solve(p.w.data(), p.rows, pool), x);
  }
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
