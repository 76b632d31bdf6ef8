// Rows of logits on vectors: losses with gradients in float with double sums, scores in double; included by the files
// of the instruction sets.
#pragma once

#include "kernels/divergence.h"
#include "kernels/isa/vector.h"

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

/// totals [N] = what body(first index, count, sums [N]) adds to its sums along the row.
template <int N, class Body>
inline void sum_row(int64_t n, double* totals, const Body& body) {
  for (int k = 0; k < N; ++k) totals[k] = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    Vec sums[N];
    for (int k = 0; k < N; ++k) sums[k] = broadcast(0);
    for_each_vector(min_of(kBlock, n - begin), [&](int64_t i, int64_t count) { body(begin + i, count, sums); });
    for (int k = 0; k < N; ++k) totals[k] += sum(sums[k]);
  }
}

/// x becomes exp(x - peak) when `Store`; returns the sum of these.
template <bool Store>
inline double exp_sum(float* x, int64_t n, float peak) {
  double total[1];
  sum_row<1>(n, total, [&](int64_t i, int64_t count, Vec* sums) {
    const Vec e = exp(load(x + i, count, kLow) - peak);
    sums[0] += e;
    if constexpr (Store) store(x + i, e, count);
  });
  return total[0];
}

/// Two rows of logits, shifted so that the largest is 0, and divided by the temperature.
struct RowPair {
  float *student, *teacher;
  int64_t n;
  float student_peak, teacher_peak, rate;  // rate: 1 / temperature

  Vec student_at(int64_t i, int64_t count) const { return (load(student + i, count, kLow) - student_peak) * rate; }
  Vec teacher_at(int64_t i, int64_t count) const { return (load(teacher + i, count, kLow) - teacher_peak) * rate; }
};

/// Over a row, s and t the values of a RowPair.
struct PairSums {
  double student, teacher;  // of e^s, e^t
  double forward, reverse;  // of e^t (t - s), e^s (s - t)

  double kl() const { return forward / teacher - __builtin_log(teacher) + __builtin_log(student); }
  double reverse_kl() const { return reverse / student - __builtin_log(student) + __builtin_log(teacher); }
};

/// Both rows become their exponentials when `Store`; `reverse` is summed when asked for.
template <bool Store, bool Reverse>
inline PairSums pair_sums(const RowPair& rows) {
  double totals[4] = {};
  sum_row<Reverse ? 4 : 3>(rows.n, totals, [&](int64_t i, int64_t count, Vec* sums) {
    const Vec s = rows.student_at(i, count), t = rows.teacher_at(i, count);
    const Vec es = exp(s), et = exp(t);
    sums[0] += es;
    sums[1] += et;
    sums[2] += et * (t - s);
    if constexpr (Reverse) sums[3] += es * (s - t);
    if constexpr (Store) {
      store(rows.student + i, es, count);
      store(rows.teacher + i, et, count);
    }
  });
  return {totals[0], totals[1], totals[2], totals[3]};
}

/// The mixture M = beta P + (1 - beta) Q seen from Q, by the difference log Q - log P, which needs no M: log Q/M =
/// -log(1 - beta + beta P/Q). Beyond e^80 between P and Q the smaller one takes no part, and e^80 can be computed with.
struct Mixture {
  float beta, shift;  // shift: what makes s - t the difference of the logarithms

  Vec difference(Vec s, Vec t) const {
    Vec d = s - t + shift;
    d = d < -80.0f ? broadcast(-80.0f) : d;
    return d > 80.0f ? broadcast(80.0f) : d;
  }
  Vec log_ratio(Vec difference) const { return -log(1.0f + beta * (exp(-difference) - 1.0f)); }
};

struct MixtureSums {
  double student, teacher;  // of e^s log Q/M, e^t log P/M
};
inline MixtureSums mixture_sums(const RowPair& rows, const Mixture& mixture) {
  double totals[2];
  sum_row<2>(rows.n, totals, [&](int64_t i, int64_t count, Vec* sums) {
    const Vec s = rows.student_at(i, count), t = rows.teacher_at(i, count);
    const Vec d = mixture.difference(s, t), ratio = mixture.log_ratio(d);
    sums[0] += exp(s) * ratio;
    sums[1] += exp(t) * (ratio - d);
  });
  return {totals[0], totals[1]};
}

/// student = student * student_factor - teacher * teacher_factor
inline void subtract_row(float* student, const float* teacher, int64_t n, float student_factor, float teacher_factor) {
  for_each_vector(n, [&](int64_t i, int64_t count) {
    store(student + i, load(student + i, count, 0) * student_factor - load(teacher + i, count, 0) * teacher_factor,
          count);
  });
}

inline void cross_entropy_row(float* student, int64_t target, float weight, int64_t n, double share, LossTerms* terms) {
  const float peak = row_max(student, n);
  const double shifted_target = static_cast<double>(student[target]) - peak;
  const double total = exp_sum<true>(student, n, peak);
  scale_row(student, n, static_cast<float>(weight * share / total));
  student[target] -= static_cast<float>(weight * share);
  terms->cross_entropy = __builtin_log(total) - shifted_target;
}

inline RowPair row_pair(float* student, float* teacher, int64_t n, double temperature) {
  return {student, teacher, n, row_max(student, n), row_max(teacher, n), static_cast<float>(1.0 / temperature)};
}

/// KL and, if weighted, cross-entropy at temperature 1: both gradients are multiples of the student's probabilities.
inline void kl_row(float* student, float* teacher, int64_t target, float weight, int64_t n, const LossTerms& w,
                   LossTerms* terms) {
  const RowPair rows = row_pair(student, teacher, n, 1.0);
  const double shifted_target = static_cast<double>(student[target]) - rows.student_peak;
  const PairSums sums = pair_sums<true, false>(rows);
  subtract_row(student, teacher, n, static_cast<float>(weight * (w.kl + w.cross_entropy) / sums.student),
               static_cast<float>(weight * w.kl / sums.teacher));
  terms->kl = sums.kl();
  if (w.cross_entropy == 0) return;
  student[target] -= static_cast<float>(weight * w.cross_entropy);
  terms->cross_entropy = __builtin_log(sums.student) - shifted_target;
}

/// Any terms at any temperature: the exponentials are made again for the gradient.
template <bool Reverse, bool Jsd>
inline void general_row(float* student, float* teacher, int64_t target, float weight, int64_t n,
                        const LogitLossSpec& spec, LossTerms* terms) {
  const LossTerms& w = spec.weights;
  const double temperature = spec.temperature, square = temperature * temperature;
  const RowPair rows = row_pair(student, teacher, n, temperature);
  const double shifted_target = static_cast<double>(student[target]) - rows.student_peak;
  const PairSums sums = pair_sums<false, Reverse>(rows);
  const double plain_sum = w.cross_entropy == 0 ? 1.0 : exp_sum<false>(student, n, rows.student_peak);

  double forward_share = w.kl, reverse_share = w.reverse_kl, mean_difference = 0;
  if (w.kl != 0) terms->kl = square * sums.kl();
  if constexpr (Reverse) {
    const double confidence = exp(rows.teacher_at(target, 1))[0] / sums.teacher;
    forward_share += w.cakld * (1 - confidence);
    reverse_share += w.cakld * confidence;
    mean_difference = sums.reverse / sums.student;
    if (w.reverse_kl != 0) terms->reverse_kl = square * sums.reverse_kl();
    if (w.cakld != 0) terms->cakld = square * (confidence * sums.reverse_kl() + (1 - confidence) * sums.kl());
  }
  Mixture mixture{};
  double mean_ratio = 0;
  if constexpr (Jsd) {
    mixture = {static_cast<float>(spec.jsd_beta),
               static_cast<float>(__builtin_log(sums.teacher) - __builtin_log(sums.student))};
    const MixtureSums ratios = mixture_sums(rows, mixture);
    mean_ratio = ratios.student / sums.student;
    terms->jsd = square * (spec.jsd_beta * ratios.teacher / sums.teacher + (1 - spec.jsd_beta) * mean_ratio);
  }

  const double by_student = weight * temperature / sums.student;  // T^2 / T: the inner derivative
  const auto s_factor = static_cast<float>(weight * forward_share * temperature / sums.student);
  const auto t_factor = static_cast<float>(weight * forward_share * temperature / sums.teacher);
  const auto reverse_factor = static_cast<float>(by_student * reverse_share);
  const auto jsd_factor = static_cast<float>(by_student * w.jsd * (1 - spec.jsd_beta));
  const auto difference_mean = static_cast<float>(mean_difference), ratio_mean = static_cast<float>(mean_ratio);
  const auto plain_factor = static_cast<float>(weight * w.cross_entropy / plain_sum);
  for_each_vector(n, [&](int64_t i, int64_t count) {
    const Vec plain = load(student + i, count, kLow) - rows.student_peak, s = plain * rows.rate;
    const Vec t = rows.teacher_at(i, count);
    Vec pull = broadcast(s_factor);
    if constexpr (Reverse) pull += (s - t - difference_mean) * reverse_factor;
    if constexpr (Jsd) pull += (mixture.log_ratio(mixture.difference(s, t)) - ratio_mean) * jsd_factor;
    Vec gradient = exp(s) * pull - exp(t) * t_factor;
    if (plain_factor != 0) gradient += exp(plain) * plain_factor;
    store(student + i, gradient, count);
  });
  if (w.cross_entropy == 0) return;
  student[target] -= static_cast<float>(weight * w.cross_entropy);
  terms->cross_entropy = __builtin_log(plain_sum) - shifted_target;
}

inline void logit_loss_row(float* student, float* teacher, int64_t target, float row_weight, int64_t vocab,
                           const LogitLossSpec& spec, LossTerms* terms) {
  const LossTerms& w = spec.weights;
  const bool reverse = w.reverse_kl != 0 || w.cakld != 0, jsd = w.jsd != 0;
  if (teacher == nullptr)
    cross_entropy_row(student, target, row_weight, vocab, w.cross_entropy, terms);
  else if (!reverse && !jsd && spec.temperature == 1.0)
    kl_row(student, teacher, target, row_weight, vocab, w, terms);
  else if (!reverse && !jsd)
    general_row<false, false>(student, teacher, target, row_weight, vocab, spec, terms);
  else if (!jsd)
    general_row<true, false>(student, teacher, target, row_weight, vocab, spec, terms);
  else if (!reverse)
    general_row<false, true>(student, teacher, target, row_weight, vocab, spec, terms);
  else
    general_row<true, true>(student, teacher, target, row_weight, vocab, spec, terms);
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
