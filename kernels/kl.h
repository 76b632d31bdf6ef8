// Losses of rows of logits and their gradient, in one visit of each row: Kullback-Leibler divergence from a teacher and
// cross-entropy.
#pragma once

#include <cstdint>

#include "core/common/executor.h"
#include "kernels/cpu_features.h"

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
                int64_t vocab, const LogitLossWeights& weights, LogitLossRow* losses, Executor& executor,
                Isa isa = best_isa());

/// What evaluation wants of a row: the terms at temperature 1 and the positions of the largest logits (the first of
/// equals).
struct LogitScoreRow {
  double kl = 0.0;
  double cross_entropy = 0.0, teacher_cross_entropy = 0.0;
  int64_t student_top = 0;
  int64_t teacher_top = 0;
};

/// In double precision. teacher may be null: its terms and kl stay 0. Logits that are not finite give scores that are
/// not.
void logit_scores(const float* student, const float* teacher, const int64_t* targets, int64_t rows, int64_t vocab,
                  LogitScoreRow* scores, Executor& executor, Isa isa = best_isa());

namespace reference {  // plain loops in double; student becomes the gradient, teacher is left alone
void logit_loss(double* student, const double* teacher, const int64_t* targets, const double* row_weights, int64_t rows,
                int64_t vocab, const LogitLossWeights& weights, LogitLossRow* losses);
}  // namespace reference

}  // namespace crumb::kernels
