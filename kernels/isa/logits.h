// Rows of logits on vectors: losses with gradients in float with double sums, scores in double; included by the files
// of the instruction sets.
#pragma once

#include "kernels/isa/vector.h"
#include "kernels/kl.h"

namespace crumb::kernels {
namespace {

constexpr int64_t kBlock = 512;  // values summed in float before they join the double
constexpr float kLow =
    -1e30f;  // stands for "no logit" in the lanes beyond the row's end; finite, so that differences are 0

inline float row_max(const float* x, int64_t n) {
  Vec m = broadcast(kLow);
  for_each_vector(n, [&](int64_t i, int64_t count) { m = max(m, load(x + i, count, kLow)); });
  return largest_of(m);
}

/// x becomes exp((x - peak) * rate) when `Store`; returns the sum of these.
template <bool Store>
inline double exp_sum(float* x, int64_t n, float peak, float rate) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    float* block = x + begin;
    Vec acc = broadcast(0);
    for_each_vector(min_of(kBlock, n - begin), [&](int64_t i, int64_t count) {
      const Vec e = exp((load(block + i, count, kLow) - peak) * rate);
      acc += e;
      if constexpr (Store) store(block + i, e, count);
    });
    total += sum(acc);
  }
  return total;
}

struct KlSums {
  double student, teacher;  // sums of the exponentials
  double difference;        // sum of teacher's exponential * (teacher's shifted logit - student's)
};
inline double kl_of(const KlSums& sums) {
  return sums.difference / sums.teacher - __builtin_log(sums.teacher) + __builtin_log(sums.student);
}

/// Both rows become their exponentials when `Store`.
template <bool Store>
inline KlSums kl_sums(float* student, float* teacher, int64_t n, float student_peak, float teacher_peak, float rate) {
  KlSums total{0, 0, 0};
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    float *s_block = student + begin, *t_block = teacher + begin;
    Vec s_acc = broadcast(0), t_acc = broadcast(0), d_acc = broadcast(0);
    for_each_vector(min_of(kBlock, n - begin), [&](int64_t i, int64_t count) {
      const Vec s = (load(s_block + i, count, kLow) - student_peak) * rate;
      const Vec t = (load(t_block + i, count, kLow) - teacher_peak) * rate;
      const Vec es = exp(s), et = exp(t);
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

/// student = student * student_factor - teacher * teacher_factor
inline void subtract_row(float* student, const float* teacher, int64_t n, float student_factor, float teacher_factor) {
  for_each_vector(n, [&](int64_t i, int64_t count) {
    store(student + i, load(student + i, count, 0) * student_factor - load(teacher + i, count, 0) * teacher_factor,
          count);
  });
}

inline void cross_entropy_row(float* student, int64_t target, float weight, int64_t n, double share,
                              LogitLossRow* loss) {
  const float peak = row_max(student, n);
  const double shifted_target = static_cast<double>(student[target]) - peak;
  const double total = exp_sum<true>(student, n, peak, 1.0f);
  scale_row(student, n, static_cast<float>(weight * share / total));
  student[target] -= static_cast<float>(weight * share);
  loss->kl = 0;
  loss->cross_entropy = __builtin_log(total) - shifted_target;
}

/// KL and, if weighted, cross-entropy at temperature 1: both gradients are multiples of the student's probabilities.
inline void kl_row(float* student, float* teacher, int64_t target, float weight, int64_t n, const LogitLossWeights& w,
                   LogitLossRow* loss) {
  const float peak = row_max(student, n);
  const double shifted_target = static_cast<double>(student[target]) - peak;
  const KlSums sums = kl_sums<true>(student, teacher, n, peak, row_max(teacher, n), 1.0f);
  subtract_row(student, teacher, n, static_cast<float>(weight * (w.kl + w.cross_entropy) / sums.student),
               static_cast<float>(weight * w.kl / sums.teacher));
  loss->kl = kl_of(sums);
  loss->cross_entropy = 0;
  if (w.cross_entropy == 0) return;
  student[target] -= static_cast<float>(weight * w.cross_entropy);
  loss->cross_entropy = __builtin_log(sums.student) - shifted_target;
}

/// The general case: the student's exponentials at temperature T and at 1 differ, so they are made again for the
/// gradient.
inline void tempered_row(float* student, float* teacher, int64_t target, float weight, int64_t n,
                         const LogitLossWeights& w, LogitLossRow* loss) {
  const auto rate = static_cast<float>(1.0 / w.temperature);
  const float peak = row_max(student, n), teacher_peak = row_max(teacher, n);
  const double shifted_target = static_cast<double>(student[target]) - peak;
  const KlSums sums = kl_sums<false>(student, teacher, n, peak, teacher_peak, rate);
  const double plain_sum = w.cross_entropy == 0 ? 1.0 : exp_sum<false>(student, n, peak, 1.0f);
  const auto s_factor =
      static_cast<float>(weight * w.kl * w.temperature / sums.student);  // T^2 / T: the inner derivative
  const auto t_factor = static_cast<float>(weight * w.kl * w.temperature / sums.teacher);
  const auto plain_factor = static_cast<float>(weight * w.cross_entropy / plain_sum);
  for_each_vector(n, [&](int64_t i, int64_t count) {
    const Vec s = load(student + i, count, kLow) - peak, t = load(teacher + i, count, kLow) - teacher_peak;
    Vec gradient = exp(s * rate) * s_factor - exp(t * rate) * t_factor;
    if (plain_factor != 0) gradient += exp(s) * plain_factor;
    store(student + i, gradient, count);
  });
  loss->kl = w.temperature * w.temperature * kl_of(sums);
  loss->cross_entropy = 0;
  if (w.cross_entropy == 0) return;
  student[target] -= static_cast<float>(weight * w.cross_entropy);
  loss->cross_entropy = __builtin_log(plain_sum) - shifted_target;
}

inline void logit_loss_row(float* student, float* teacher, int64_t target, float row_weight, int64_t vocab,
                           const LogitLossWeights& weights, LogitLossRow* loss) {
  if (weights.kl == 0)
    cross_entropy_row(student, target, row_weight, vocab, weights.cross_entropy, loss);
  else if (weights.temperature == 1.0)
    kl_row(student, teacher, target, row_weight, vocab, weights, loss);
  else
    tempered_row(student, teacher, target, row_weight, vocab, weights, loss);
}

/// body(vector of shifted logits, first index, count) for half vectors of a row, in double; lanes beyond the end hold a
/// number whose exponential is 0.
inline VecDouble shifted_logits(const float* x, int64_t count, float peak) {
  VecHalf v;
  if (count == kLanes / 2) {
    __builtin_memcpy(&v, x, sizeof v);
  } else {
    for (int64_t i = 0; i < kLanes / 2; ++i) v[i] = i < count ? x[i] : kLow;
  }
  return __builtin_convertvector(v, VecDouble) - static_cast<double>(peak);
}

/// Sum of exp(x - peak). With `other`, difference gets the sum of exp(x - peak) * ((x - peak) - (other - other_peak)).
inline double exp_sum_double(const float* x, int64_t n, float peak, const float* other, float other_peak,
                             double* difference) {
  VecDouble total = {}, differences = {};
  for (int64_t i = 0; i < n; i += kLanes / 2) {
    const int64_t count = min_of(kLanes / 2, n - i);
    const VecDouble shifted = shifted_logits(x + i, count, peak), e = exp_double(shifted);
    total += e;
    if (other != nullptr) differences += e * (shifted - shifted_logits(other + i, count, other_peak));
  }
  if (other != nullptr) *difference = sum(differences);
  return sum(total);
}

inline int64_t first_of(const float* x, int64_t n, float value) {
  int64_t i = 0;
  while (i < n && x[i] != value) ++i;
  return i;
}

inline void logit_score_row(const float* student, const float* teacher, int64_t target, int64_t n,
                            LogitScoreRow* score) {
  const float peak = row_max(student, n);
  const double log_sum = __builtin_log(exp_sum_double(student, n, peak, nullptr, 0, nullptr));
  score->student_top = first_of(student, n, peak);
  score->cross_entropy = log_sum - (static_cast<double>(student[target]) - peak);
  score->kl = 0;
  score->teacher_cross_entropy = 0;
  score->teacher_top = 0;
  if (teacher == nullptr) return;
  const float teacher_peak = row_max(teacher, n);
  double difference = 0;
  const double teacher_sum = exp_sum_double(teacher, n, teacher_peak, student, peak, &difference);
  const double teacher_log_sum = __builtin_log(teacher_sum);
  score->teacher_top = first_of(teacher, n, teacher_peak);
  score->teacher_cross_entropy = teacher_log_sum - (static_cast<double>(teacher[target]) - teacher_peak);
  score->kl = difference / teacher_sum - teacher_log_sum + log_sum;
}

}  // namespace
}  // namespace crumb::kernels
