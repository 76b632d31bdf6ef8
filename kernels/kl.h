// Losses of rows of logits and their gradient, in one visit of each row: Kullback-Leibler divergence from a teacher and
// cross-entropy.
#pragma once

#include <cstdint>

#include "core/common/thread_pool.h"

namespace crumb::kernels {

/// loss of a row = kl * T^2 * KL(softmax(teacher / T) || softmax(student / T)) + cross_entropy * -log
/// softmax(student)[target], T = temperature.
struct LogitLossWeights {
  double kl = 1.0;
  double cross_entropy = 0.0;
  double temperature = 1.0;
};

/// Unweighted terms of a row, in nats; a term with weight 0 is not computed and 0. kl includes the factor T^2.
struct LogitLossRow {
  double kl = 0.0;
  double cross_entropy = 0.0;
};

/// student [rows, vocab] becomes row_weights[row] * d loss / d student; teacher [rows, vocab] is used as scratch, may
/// be null when kl = 0. targets [rows] in 0..vocab-1; losses [rows]. A row's result does not depend on the others.
void logit_loss(float* student, float* teacher, const int64_t* targets, const float* row_weights, int64_t rows,
                int64_t vocab, const LogitLossWeights& weights, LogitLossRow* losses, const ParallelFor& parallel_for);

/// What evaluation wants of a row: both terms at temperature 1 and the positions of the largest logits (the first of
/// equals).
struct LogitScoreRow {
  double kl = 0.0;
  double cross_entropy = 0.0;
  int64_t student_top = 0;
  int64_t teacher_top = 0;
};

/// Both inputs are used as scratch; teacher may be null (kl and teacher_top stay 0).
void logit_scores(float* student, float* teacher, const int64_t* targets, int64_t rows, int64_t vocab,
                  LogitScoreRow* scores, const ParallelFor& parallel_for);

namespace reference {  // plain loops in double; student becomes the gradient, teacher is left alone
void logit_loss(double* student, const double* teacher, const int64_t* targets, const double* row_weights, int64_t rows,
                int64_t vocab, const LogitLossWeights& weights, LogitLossRow* losses);
}  // namespace reference

}  // namespace crumb::kernels
