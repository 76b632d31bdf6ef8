// The losses of kernels/divergence.h by their definitions, each term for itself.
#include "kernels/divergence.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace crumb::kernels::reference {
namespace {

using Row = std::vector<double>;

Row log_softmax(const double* x, int64_t n, double temperature) {
  const double peak = *std::max_element(x, x + n);
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += std::exp((x[i] - peak) / temperature);
  Row out(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) out[static_cast<size_t>(i)] = (x[i] - peak) / temperature - std::log(total);
  return out;
}

/// sum of exp(log_p) (log_p - log_q)
double kl(const Row& log_p, const Row& log_q) {
  double sum = 0;
  for (size_t i = 0; i < log_p.size(); ++i) sum += std::exp(log_p[i]) * (log_p[i] - log_q[i]);
  return sum;
}

/// log(beta P + (1 - beta) Q), from the larger of the two so that nothing overflows.
Row log_mixture(const Row& log_p, const Row& log_q, double beta) {
  Row out(log_p.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const double top = std::max(log_p[i], log_q[i]);
    out[i] = top + std::log(beta * std::exp(log_p[i] - top) + (1 - beta) * std::exp(log_q[i] - top));
  }
  return out;
}

/// As kl, for a Q that is nowhere 0 where P is not: 0 log 0 = 0.
double kl_to_mixture(const Row& log_p, const Row& log_m) {
  double sum = 0;
  for (size_t i = 0; i < log_p.size(); ++i) {
    if (log_p[i] != -INFINITY) sum += std::exp(log_p[i]) * (log_p[i] - log_m[i]);
  }
  return sum;
}

/// gradient += factor * Q (log Q/R - KL(Q || R)), R the distribution that Q is compared with.
void add_pull(const Row& log_q, const Row& log_r, double divergence, double factor, Row& gradient) {
  for (size_t i = 0; i < gradient.size(); ++i) {
    if (log_q[i] != -INFINITY) gradient[i] += factor * std::exp(log_q[i]) * (log_q[i] - log_r[i] - divergence);
  }
}

/// The divergences of one row; gradient is added to.
void add_divergences(const Row& log_p, const Row& log_q, int64_t target, const LogitLossSpec& spec, Row& gradient,
                     LossTerms* terms) {
  const auto& [w, temperature, beta] = spec;
  const double square = temperature * temperature, confidence = std::exp(log_p[static_cast<size_t>(target)]);
  const double forward_share = w.kl + w.cakld * (1 - confidence), reverse_share = w.reverse_kl + w.cakld * confidence;
  if (forward_share != 0 || reverse_share != 0) {
    const double forward = square * kl(log_p, log_q), reverse = square * kl(log_q, log_p);
    terms->kl = w.kl != 0 ? forward : 0;
    terms->reverse_kl = w.reverse_kl != 0 ? reverse : 0;
    terms->cakld = w.cakld != 0 ? confidence * reverse + (1 - confidence) * forward : 0;
  }
  if (forward_share != 0) {
    for (size_t i = 0; i < gradient.size(); ++i)
      gradient[i] += forward_share * temperature * (std::exp(log_q[i]) - std::exp(log_p[i]));
  }
  if (reverse_share != 0) add_pull(log_q, log_p, kl(log_q, log_p), reverse_share * temperature, gradient);
  if (w.jsd != 0) {
    const Row log_m = log_mixture(log_p, log_q, beta);
    const double of_student = kl_to_mixture(log_q, log_m);
    terms->jsd = square * (beta * kl_to_mixture(log_p, log_m) + (1 - beta) * of_student);
    add_pull(log_q, log_m, of_student, w.jsd * (1 - beta) * temperature, gradient);
  }
}

}  // namespace

void logit_loss(double* student, const double* teacher, const int64_t* targets, const double* row_weights, int64_t rows,
                int64_t vocab, const LogitLossSpec& spec, LossTerms* terms) {
  for (int64_t r = 0; r < rows; ++r) {
    double* s = student + r * vocab;
    Row gradient(static_cast<size_t>(vocab), 0.0);
    terms[r] = {};
    if (needs_teacher(spec.weights)) {
      add_divergences(log_softmax(teacher + r * vocab, vocab, spec.temperature),
                      log_softmax(s, vocab, spec.temperature), targets[r], spec, gradient, terms + r);
    }
    if (spec.weights.cross_entropy != 0) {
      const Row log_q = log_softmax(s, vocab, 1.0);
      const auto target = static_cast<size_t>(targets[r]);
      terms[r].cross_entropy = -log_q[target];
      for (size_t i = 0; i < gradient.size(); ++i)
        gradient[i] += spec.weights.cross_entropy * (std::exp(log_q[i]) - (i == target ? 1.0 : 0.0));
    }
    for (int64_t i = 0; i < vocab; ++i) s[i] = row_weights[r] * gradient[static_cast<size_t>(i)];
  }
}

}  // namespace crumb::kernels::reference
