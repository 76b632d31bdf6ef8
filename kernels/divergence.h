// Losses of rows of logits and their gradient: divergences of a student's distribution from a teacher's, and
// cross-entropy.
//
// With P = softmax(teacher / T), Q = softmax(student / T), T the temperature, and M = beta P + (1 - beta) Q:
//   kl             T^2 KL(P || Q)                                            Hinton et al., arXiv:1503.02531
//   reverse_kl     T^2 KL(Q || P)                                            Gu et al., arXiv:2306.08543
//   jsd            T^2 (beta KL(P || M) + (1 - beta) KL(Q || M))             Agarwal et al., arXiv:2306.13649
//   cakld          T^2 (c KL(Q || P) + (1 - c) KL(P || Q)), c = P[target]    Du et al., arXiv:2402.10631
//   cross_entropy  -log softmax(student)[target]
//
// Gradients by the student's logits z: kl T (Q - P); reverse_kl T Q (log Q/P - KL(Q || P)); jsd T (1 - beta) Q
// (log Q/M - KL(Q || M)); cakld mixes the first two, c being the teacher's alone; cross_entropy softmax(z) - [target].
//
// Differs from arXiv:2402.10631: c is the confidence at each position and not its mean over a corpus, so nothing has to
// be estimated before training.
#pragma once

#include <cstdint>

#include "core/common/executor.h"
#include "kernels/cpu_features.h"

namespace crumb::kernels {

/// One number for each term of the loss of a row: its weight, or its value in nats.
struct LossTerms {
  double kl = 0.0, reverse_kl = 0.0, jsd = 0.0, cakld = 0.0, cross_entropy = 0.0;
};

/// The terms by the names of jobs, metrics and operators, in the order of LossTerms.
struct LossTerm {
  const char* name;
  double LossTerms::*value;
};
inline constexpr LossTerm kLossTerms[] = {{"kl", &LossTerms::kl},
                                          {"reverse_kl", &LossTerms::reverse_kl},
                                          {"jsd", &LossTerms::jsd},
                                          {"cakld", &LossTerms::cakld},
                                          {"cross_entropy", &LossTerms::cross_entropy}};
inline constexpr int64_t kNumLossTerms = sizeof(kLossTerms) / sizeof(LossTerm);

/// Loss of a row: the sum of its terms by their weights.
struct LogitLossSpec {
  LossTerms weights = {};
  double temperature = 1.0;
  double jsd_beta = 0.5;  // in 0..1; towards 0, jsd / beta is kl, towards 1, jsd / (1 - beta) is reverse_kl
};

/// Whether a divergence has a weight.
bool needs_teacher(const LossTerms& weights);

/// student [rows, vocab] becomes row_weights[row] * d loss / d student; teacher [rows, vocab] is used as scratch, may
/// be null when !needs_teacher. targets [rows] in 0..vocab-1. terms [rows]: values without weights; a term of weight 0
/// is not computed and 0. A row of weight 0 is not looked at: its gradient and terms are 0. A row's result does not
/// depend on the others.
///
/// Logits must be finite. A NaN makes every term NaN. cross_entropy and jsd read -inf in one of the rows as a
/// probability of 0; the other terms are not finite then. temperature > 0, jsd_beta in 0..1.
void logit_loss(float* student, float* teacher, const int64_t* targets, const float* row_weights, int64_t rows,
                int64_t vocab, const LogitLossSpec& spec, LossTerms* terms, Executor& executor, Isa isa = best_isa());

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
                int64_t vocab, const LogitLossSpec& spec, LossTerms* terms);
}  // namespace reference

}  // namespace crumb::kernels
