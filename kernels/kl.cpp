#include "kernels/kl.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/vector8.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kBlock = 512;  // values summed in float before they join the double
constexpr float kLow =
    -1e30f;  // stands for "no logit" in the lanes beyond the row's end; finite, so that differences are 0

float row_max(const float* x, int64_t n) {
  Vec8 m = broadcast(kLow);
  for_each8(n, [&](int64_t i, int64_t count) { m = max(m, load(x + i, count, kLow)); });
  float best = m[0];
  for (int i = 1; i < 8; ++i) best = std::max(best, m[i]);
  return best;
}

/// x becomes exp((x - peak) * rate) when `Store`; returns the sum of these.
template <bool Store>
double exp_sum(float* x, int64_t n, float peak, float rate) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    float* block = x + begin;
    Vec8 acc = broadcast(0);
    for_each8(std::min(kBlock, n - begin), [&](int64_t i, int64_t count) {
      const Vec8 e = exp((load(block + i, count, kLow) - peak) * rate);
      acc += e;
      if constexpr (Store) store(block + i, e, count);
    });
    total += sum(acc);
  }
  return total;
}

struct KlSums {
  double student = 0, teacher = 0;  // sums of the exponentials
  double difference = 0;            // sum of teacher's exponential * (teacher's shifted logit - student's)
  double kl() const { return difference / teacher - std::log(teacher) + std::log(student); }
};

/// Both rows become their exponentials when `Store`.
template <bool Store>
KlSums kl_sums(float* student, float* teacher, int64_t n, float student_peak, float teacher_peak, float rate) {
  KlSums total;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    float *s_block = student + begin, *t_block = teacher + begin;
    Vec8 s_acc = broadcast(0), t_acc = broadcast(0), d_acc = broadcast(0);
    for_each8(std::min(kBlock, n - begin), [&](int64_t i, int64_t count) {
      const Vec8 s = (load(s_block + i, count, kLow) - student_peak) * rate;
      const Vec8 t = (load(t_block + i, count, kLow) - teacher_peak) * rate;
      const Vec8 es = exp(s), et = exp(t);
      s_acc += es;
      t_acc += et;
      d_acc += et * (t - s);
      if constexpr (Store) {
        store(s_block + i, es, count);
        store(t_block + i, et, count);
      }
    });
    total.student += sum(s_acc);
    total.teacher += sum(t_acc);
    total.difference += sum(d_acc);
  }
  return total;
}

/// x = x * factor
void scale_row(float* x, int64_t n, float factor) {
  for_each8(n, [&](int64_t i, int64_t count) { store(x + i, load(x + i, count, 0) * factor, count); });
}

/// student = student * student_factor - teacher * teacher_factor
void subtract_row(float* student, const float* teacher, int64_t n, float student_factor, float teacher_factor) {
  for_each8(n, [&](int64_t i, int64_t count) {
    store(student + i, load(student + i, count, 0) * student_factor - load(teacher + i, count, 0) * teacher_factor,
          count);
  });
}

LogitLossRow cross_entropy_row(float* student, int64_t target, float weight, int64_t n, double share) {
  const float peak = row_max(student, n);
  const double shifted_target = static_cast<double>(student[target]) - peak;
  const double total = exp_sum<true>(student, n, peak, 1.0f);
  scale_row(student, n, static_cast<float>(weight * share / total));
  student[target] -= static_cast<float>(weight * share);
  return {.kl = 0, .cross_entropy = std::log(total) - shifted_target};
}

/// KL and, if weighted, cross-entropy at temperature 1: both gradients are multiples of the student's probabilities.
LogitLossRow kl_row(float* student, float* teacher, int64_t target, float weight, int64_t n,
                    const LogitLossWeights& w) {
  const float peak = row_max(student, n);
  const double shifted_target = static_cast<double>(student[target]) - peak;
  const KlSums sums = kl_sums<true>(student, teacher, n, peak, row_max(teacher, n), 1.0f);
  subtract_row(student, teacher, n, static_cast<float>(weight * (w.kl + w.cross_entropy) / sums.student),
               static_cast<float>(weight * w.kl / sums.teacher));
  if (w.cross_entropy == 0) return {.kl = sums.kl(), .cross_entropy = 0};
  student[target] -= static_cast<float>(weight * w.cross_entropy);
  return {.kl = sums.kl(), .cross_entropy = std::log(sums.student) - shifted_target};
}

/// The general case: the student's exponentials at temperature T and at 1 differ, so they are made again for the
/// gradient.
LogitLossRow tempered_row(float* student, float* teacher, int64_t target, float weight, int64_t n,
                          const LogitLossWeights& w) {
  const auto rate = static_cast<float>(1.0 / w.temperature);
  const float peak = row_max(student, n), teacher_peak = row_max(teacher, n);
  const double shifted_target = static_cast<double>(student[target]) - peak;
  const KlSums sums = kl_sums<false>(student, teacher, n, peak, teacher_peak, rate);
  const double plain_sum = w.cross_entropy == 0 ? 1.0 : exp_sum<false>(student, n, peak, 1.0f);
  const auto s_factor =
      static_cast<float>(weight * w.kl * w.temperature / sums.student);  // T^2 / T: the inner derivative
  const auto t_factor = static_cast<float>(weight * w.kl * w.temperature / sums.teacher);
  const auto plain_factor = static_cast<float>(weight * w.cross_entropy / plain_sum);
  for_each8(n, [&](int64_t i, int64_t count) {
    const Vec8 s = load(student + i, count, kLow) - peak, t = load(teacher + i, count, kLow) - teacher_peak;
    Vec8 gradient = exp(s * rate) * s_factor - exp(t * rate) * t_factor;
    if (plain_factor != 0) gradient += exp(s) * plain_factor;
    store(student + i, gradient, count);
  });
  const double square = w.temperature * w.temperature;
  if (w.cross_entropy == 0) return {.kl = square * sums.kl(), .cross_entropy = 0};
  student[target] -= static_cast<float>(weight * w.cross_entropy);
  return {.kl = square * sums.kl(), .cross_entropy = std::log(plain_sum) - shifted_target};
}

int64_t first_of(const float* x, int64_t n, float value) { return std::find(x, x + n, value) - x; }

LogitScoreRow score_row(float* student, float* teacher, int64_t target, int64_t n) {
  LogitScoreRow score;
  const float peak = row_max(student, n);
  score.student_top = first_of(student, n, peak);
  const double shifted_target = static_cast<double>(student[target]) - peak;
  if (teacher == nullptr) {
    score.cross_entropy = std::log(exp_sum<false>(student, n, peak, 1.0f)) - shifted_target;
    return score;
  }
  const float teacher_peak = row_max(teacher, n);
  score.teacher_top = first_of(teacher, n, teacher_peak);
  const KlSums sums = kl_sums<false>(student, teacher, n, peak, teacher_peak, 1.0f);
  score.kl = sums.kl();
  score.cross_entropy = std::log(sums.student) - shifted_target;
  return score;
}

}  // namespace

void logit_loss(float* student, float* teacher, const int64_t* targets, const float* row_weights, int64_t rows,
                int64_t vocab, const LogitLossWeights& weights, LogitLossRow* losses, const ParallelFor& parallel_for) {
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* s = student + r * vocab;
      float* t = weights.kl == 0 ? nullptr : teacher + r * vocab;
      if (t == nullptr)
        losses[r] = cross_entropy_row(s, targets[r], row_weights[r], vocab, weights.cross_entropy);
      else if (weights.temperature == 1.0)
        losses[r] = kl_row(s, t, targets[r], row_weights[r], vocab, weights);
      else
        losses[r] = tempered_row(s, t, targets[r], row_weights[r], vocab, weights);
    }
  });
}

void logit_scores(float* student, float* teacher, const int64_t* targets, int64_t rows, int64_t vocab,
                  LogitScoreRow* scores, const ParallelFor& parallel_for) {
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      scores[r] = score_row(student + r * vocab, teacher == nullptr ? nullptr : teacher + r * vocab, targets[r], vocab);
    }
  });
}

namespace reference {
namespace {

std::vector<double> log_softmax(const double* x, int64_t n, double temperature) {
  const double peak = *std::max_element(x, x + n);
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += std::exp((x[i] - peak) / temperature);
  std::vector<double> out(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) out[static_cast<size_t>(i)] = (x[i] - peak) / temperature - std::log(total);
  return out;
}

}  // namespace

void logit_loss(double* student, const double* teacher, const int64_t* targets, const double* row_weights, int64_t rows,
                int64_t vocab, const LogitLossWeights& weights, LogitLossRow* losses) {
  for (int64_t r = 0; r < rows; ++r) {
    double* s = student + r * vocab;
    std::vector<double> gradient(static_cast<size_t>(vocab), 0.0);
    losses[r] = {};
    if (weights.kl != 0) {
      const auto log_p = log_softmax(teacher + r * vocab, vocab, weights.temperature),
                 log_q = log_softmax(s, vocab, weights.temperature);
      for (size_t i = 0; i < gradient.size(); ++i) {
        losses[r].kl += weights.temperature * weights.temperature * std::exp(log_p[i]) * (log_p[i] - log_q[i]);
        gradient[i] += weights.kl * weights.temperature * (std::exp(log_q[i]) - std::exp(log_p[i]));
      }
    }
    if (weights.cross_entropy != 0) {
      const auto log_q = log_softmax(s, vocab, 1.0);
      const auto target = static_cast<size_t>(targets[r]);
      losses[r].cross_entropy = -log_q[target];
      for (size_t i = 0; i < gradient.size(); ++i)
        gradient[i] += weights.cross_entropy * (std::exp(log_q[i]) - (i == target ? 1.0 : 0.0));
    }
    for (int64_t i = 0; i < vocab; ++i) s[i] = row_weights[r] * gradient[static_cast<size_t>(i)];
  }
}

}  // namespace reference

}  // namespace crumb::kernels
