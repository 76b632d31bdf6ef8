#include "ptq/feedback.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "core/common/error.h"
#include "core/common/log.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

using quant::GroupScale;
using quant::QuantFormat;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Columns = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;

constexpr int64_t kBlockCols = 128;   // columns whose feedback to each other is computed one by one
constexpr double kMostDamping = 1e4;  // nothing but rounding to nearest is left long before
constexpr int64_t kChunkRows = 64;    // rows of a thread at a time: a column of them is contiguous

/// Rows [begin, begin + count) of a matrix, which are rounded together.
class Chunk {
 public:
  Chunk(const float* w, int64_t count, const FeedbackFactor& factor, const QuantFormat& format,
        const FeedbackOptions& options)
      : w_(w),
        rows_(count),
        cols_(factor.size()),
        factor_(factor),
        format_(format),
        options_(options),
        group_cols_(format.group_cols(cols_)),
        has_static_scales_(options.static_scales || group_cols_ == cols_),  // a whole row's turn comes first of all
        sparsity_(options.sparsity),
        levels_(format.levels()),
        coefficients_(factor.coefficients(), cols_, cols_),
        errors_(rows_, cols_),
        scales_(static_cast<size_t>(rows_ * format.groups(cols_))) {}

  /// Everything of these rows into the whole result, whose row `begin` is the chunk's first.
  void run(int64_t begin, FeedbackResult& out) {
    codes_ = out.codes.codes.data() + begin * cols_;
    targets_ = out.targets.data() + begin * cols_;
    if (format_.has_mask) mask_ = out.codes.mask.data() + begin * cols_;
    // A first choice, for the scales: by the weights as they are.
    if (sparsity_.prunes()) choose(0, columns_of_weights(0, cols_));
    if (has_static_scales_) {
      for (int64_t group = 0; group < cols_ / group_cols_; ++group) find_scales(group, w_, cols_, group * group_cols_);
    }
    const int64_t block = block_cols();
    for (int64_t first = 0; first < cols_; first += block) round_block(first, std::min(block, cols_ - first));
    for (int64_t row = 0; row < rows_; ++row) {
      for (int64_t group = 0; group < cols_ / group_cols_; ++group) {
        const GroupScale& scale = scales_[static_cast<size_t>(group * rows_ + row)];
        out.codes.set_group(static_cast<size_t>((begin + row) * (cols_ / group_cols_) + group), scale);
      }
    }
  }

 private:
  /// Where scales come from the targets, a group lies within one block; so do neighbours of which some are pruned.
  int64_t block_cols() const {
    if (sparsity_.of > 0) return kBlockCols / sparsity_.of * sparsity_.of;
    if (has_static_scales_) return kBlockCols;
    return std::max(group_cols_, kBlockCols / group_cols_ * group_cols_);
  }

  GroupScale* scales_of(int64_t group) { return scales_.data() + group * rows_; }

  bool is_pruned(int64_t row, int64_t col) const { return mask_ != nullptr && mask_[row * cols_ + col] == 0; }

  /// Scales of a group from values [rows, stride] at column `at`: of the weights that stay, or of all where none does,
  /// since what is pruned may change until its turn comes.
  void find_scales(int64_t group, const float* values, int64_t stride, int64_t at) {
    std::vector<float> kept;
    for (int64_t row = 0; row < rows_; ++row) {
      const float* w = values + row * stride + at;
      if (mask_ != nullptr) {
        kept.assign(w, w + group_cols_);
        for (int64_t k = 0; k < group_cols_; ++k) {
          if (is_pruned(row, group * group_cols_ + k)) kept[static_cast<size_t>(k)] = 0;
        }
        if (std::ranges::any_of(kept, [](float x) { return x != 0; })) w = kept.data();
      }
      scales_of(group)[row] = format_.grid->find_scale(w, group_cols_, format_, options_.init,
                                                       factor_.importance().data() + group * group_cols_);
    }
  }

  /// Columns [i, i + count) of the factor's order.
  RowMajor columns_of_weights(int64_t i, int64_t count) const {
    RowMajor values(rows_, count);
    for (int64_t row = 0; row < rows_; ++row) {
      for (int64_t k = 0; k < count; ++k)
        values(row, k) = w_[row * cols_ + factor_.order()[static_cast<size_t>(i + k)]];
    }
    return values;
  }

  /// Which of columns [i, i + values.cols()) of the order go, whose targets are these values.
  void choose(int64_t i, const RowMajor& values) {
    const int64_t count = values.cols(), together = sparsity_.of > 0 ? sparsity_.of : count;
    std::vector<double> scores(static_cast<size_t>(together));
    std::vector<uint8_t> kept(static_cast<size_t>(together));
    for (int64_t begin = 0; begin < count; begin += together) {
      const int64_t first = i + begin;
      const int64_t pruned = sparsity_.pruned_of(first + together) - sparsity_.pruned_of(first);
      for (int64_t row = 0; row < rows_; ++row) {
        for (int64_t k = 0; k < together; ++k) {
          const double target = values(row, begin + k);
          scores[static_cast<size_t>(k)] = target * target * factor_.pivots()[static_cast<size_t>(first + k)];
        }
        keep_largest(scores.data(), together, pruned, kept.data());
        for (int64_t k = 0; k < together; ++k)
          mask_[row * cols_ + factor_.order()[static_cast<size_t>(first + k)]] = kept[static_cast<size_t>(k)];
      }
    }
  }

  /// Columns [i, i + count) of the order within the block that begins with `first`, as they best make up for all before
  /// column i: the weights that GPTQ and SparseGPT have in memory then. With moves d of them, and C of the coefficients
  /// among them, d = feed - d C, since a column that moves is itself an error to those after it.
  RowMajor targets_of(int64_t first, int64_t i, int64_t count, const Columns& feed) const {
    RowMajor moves = feed.middleCols(i - first, count);
    moves.noalias() += errors_.middleCols(first, i - first) * coefficients_.block(first, i, i - first, count);
    coefficients_.block(i, i, count, count).triangularView<Eigen::UnitUpper>().solveInPlace<Eigen::OnTheRight>(moves);
    return moves + columns_of_weights(i, count);
  }

  void round_block(int64_t first, int64_t count) {
    // what the columns before the block give to all of its columns
    Columns feed = errors_.leftCols(first) * coefficients_.block(0, first, first, count);
    std::vector<uint8_t> codes(static_cast<size_t>(rows_));
    Eigen::VectorXf target(rows_);
    for (int64_t i = first; i < first + count; ++i) {
      const int64_t col = factor_.order()[static_cast<size_t>(i)], group = col / group_cols_;
      if (const int64_t together = sparsity_.of > 0 ? sparsity_.of : count;
          sparsity_.prunes() && (i - first) % together == 0)
        choose(i, targets_of(first, i, together, feed));
      if (!has_static_scales_ && i % group_cols_ == 0) find_scales_of_targets(first, i, feed);
      for (int64_t row = 0; row < rows_; ++row) target[row] = w_[row * cols_ + col];
      target += feed.col(i - first);
      target.noalias() += errors_.middleCols(first, i - first) * coefficients_.col(i).segment(first, i - first);
      for (int64_t row = 0; row < rows_; ++row) {
        if (is_pruned(row, col)) target[row] = 0;  // whose code is that of 0
      }
      const GroupScale* scales = scales_of(group);
      format_.grid->nearest_codes_of_column(target.data(), rows_, format_, scales, codes.data());
      for (int64_t row = 0; row < rows_; ++row) {
        const uint8_t code = codes[static_cast<size_t>(row)];
        errors_(row, i) = w_[row * cols_ + col] - scales[row].value(levels_[code]);
        codes_[row * cols_ + col] = code;
        targets_[row * cols_ + col] = target[row];
      }
    }
  }

  /// Of the group that begins with column i, columns in their own order.
  void find_scales_of_targets(int64_t first, int64_t i, const Columns& feed) {
    const RowMajor values = targets_of(first, i, group_cols_, feed);
    find_scales(i / group_cols_, values.data(), group_cols_, 0);
  }

  const float* w_;
  int64_t rows_, cols_;
  const FeedbackFactor& factor_;
  const QuantFormat& format_;
  const FeedbackOptions& options_;
  int64_t group_cols_;
  bool has_static_scales_;
  Sparsity sparsity_;
  std::vector<float> levels_;
  Eigen::Map<const RowMajor> coefficients_;
  Columns errors_;                  // w - q of the columns done, in the factor's order
  std::vector<GroupScale> scales_;  // [groups, rows]
  uint8_t* codes_ = nullptr;
  float* targets_ = nullptr;
  uint8_t* mask_ = nullptr;  // null: nothing is pruned
};

/// Columns of falling energy, those of a pattern together.
void sort_by_energy(std::vector<int64_t>& order, int64_t together, const std::function<double(int64_t)>& energy) {
  std::vector<int64_t> heads;
  std::vector<double> sums;
  for (int64_t begin = 0; begin < std::ssize(order); begin += together) {
    heads.push_back(begin / together);
    double& sum = sums.emplace_back(0);
    for (int64_t k = 0; k < together; ++k) sum += energy(begin + k);
  }
  std::ranges::stable_sort(heads, std::greater<>(), [&](int64_t head) { return sums[static_cast<size_t>(head)]; });
  for (int64_t i = 0; i < std::ssize(order); ++i)
    order[static_cast<size_t>(i)] = heads[static_cast<size_t>(i / together)] * together + i % together;
}

}  // namespace

FeedbackFactor::FeedbackFactor(const float* gram, int64_t n, const FeedbackOptions& options)
    : n_(n),
      order_(static_cast<size_t>(n)),
      coefficients_(static_cast<size_t>(n * n)),
      pivots_(static_cast<size_t>(n)) {
  CRUMB_ASSERT(options.static_scales || !(options.act_order || options.sparsity.prunes()));
  const auto diagonal = [&](int64_t i) { return gram[i * n + i]; };
  const int64_t together = std::max<int64_t>(1, options.sparsity.of);
  CRUMB_ASSERT(n % together == 0);
  std::iota(order_.begin(), order_.end(), 0);
  if (options.act_order) sort_by_energy(order_, together, diagonal);
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) {
    dead_columns_ += diagonal(i) == 0 ? 1 : 0;
    mean += diagonal(i) / static_cast<double>(n);
  }
  if (mean == 0) mean = 1;  // nothing moves: plain rounding
  for (damping_ = options.damping; !factorize(gram, damping_ * mean); damping_ = std::max(1e-6, damping_ * 10))
    if (damping_ > kMostDamping) run_error("GPTQ: the Gram matrix of the inputs is not positive even when damped");
  for (int64_t i = 0; i < n; ++i) importance_.push_back(static_cast<float>(diagonal(i) + damping_ * mean));
}

/// False: not positive definite.
bool FeedbackFactor::factorize(const float* gram, double added) {
  Eigen::MatrixXd reversed(n_, n_);  // its lower triangle is what LLT reads
  const auto source = [&](int64_t i) { return order_[static_cast<size_t>(n_ - 1 - i)]; };
  for (int64_t col = 0; col < n_; ++col) {
    for (int64_t row = col; row < n_; ++row) reversed(row, col) = gram[source(row) * n_ + source(col)];
    if (reversed(col, col) == 0) reversed(col, col) = 1;
    reversed(col, col) += added;
  }
  const Eigen::LLT<Eigen::Ref<Eigen::MatrixXd>> factorization(reversed);  // in place
  if (factorization.info() != Eigen::Success) return false;
  for (int64_t i = 0; i < n_; ++i) {
    const double pivot = reversed(n_ - 1 - i, n_ - 1 - i);
    if (!(pivot > 0) || !std::isfinite(pivot)) return false;
    const int64_t col = order_[static_cast<size_t>(i)];
    pivots_[static_cast<size_t>(i)] = gram[col * n_ + col] == 0 ? 0 : static_cast<float>(pivot * pivot);
    for (int64_t j = 0; j < i; ++j)
      coefficients_[static_cast<size_t>(j * n_ + i)] = static_cast<float>(reversed(n_ - 1 - j, n_ - 1 - i) / pivot);
  }
  return true;
}

std::vector<float> FeedbackFactor::solve(const float* b, int64_t rows, Executor& executor) const {
  // H = U D U^T, U = R with its columns divided by their pivots: first X U^T = b, then V U = X / D.
  const Eigen::Map<const RowMajor> u(coefficients_.data(), n_, n_);
  std::vector<float> out(static_cast<size_t>(rows * n_));
  executor.run_in_turns((rows + kChunkRows - 1) / kChunkRows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * kChunkRows, count = std::min(kChunkRows, rows - first);
      RowMajor x(count, n_);
      for (int64_t row = 0; row < count; ++row) {
        for (int64_t i = 0; i < n_; ++i) x(row, i) = b[(first + row) * n_ + order_[static_cast<size_t>(i)]];
      }
      u.transpose().triangularView<Eigen::UnitLower>().solveInPlace<Eigen::OnTheRight>(x);
      for (int64_t i = 0; i < n_; ++i) {
        const float pivot = pivots_[static_cast<size_t>(i)];
        x.col(i) *= pivot > 0 ? 1 / pivot : 0;
      }
      u.triangularView<Eigen::UnitUpper>().solveInPlace<Eigen::OnTheRight>(x);
      for (int64_t row = 0; row < count; ++row) {
        for (int64_t i = 0; i < n_; ++i)
          out[static_cast<size_t>((first + row) * n_ + order_[static_cast<size_t>(i)])] = x(row, i);
      }
    }
  });
  return out;
}

FeedbackResult round_with_feedback(const float* w, int64_t rows, const FeedbackFactor& factor,
                                   const QuantFormat& format, const FeedbackOptions& options, Executor& executor,
                                   const std::vector<uint8_t>& mask) {
  const int64_t cols = factor.size();
  CRUMB_ASSERT(cols % format.group_cols(cols) == 0);
  quant::check_method(format, options.init);
  FeedbackResult out;
  out.codes = {.format = format, .rows = rows, .cols = cols, .codes = {}, .scales = {}, .zero_points = {}};
  out.codes.codes.resize(static_cast<size_t>(rows * cols));
  out.targets.resize(out.codes.codes.size());
  out.codes.resize_groups();
  CRUMB_ASSERT(format.has_mask == (options.sparsity.prunes() || !mask.empty()));
  out.codes.mask = mask;
  if (format.has_mask) out.codes.mask.resize(out.codes.codes.size());
  executor.run_in_turns((rows + kChunkRows - 1) / kChunkRows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t row = chunk * kChunkRows;
      Chunk(w + row * cols, std::min(kChunkRows, rows - row), factor, format, options).run(row, out);
    }
  });
  return out;
}

}  // namespace crumb::ptq
