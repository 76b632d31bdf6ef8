#include "kernels/torch/logit_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

#include "kernels/torch/op.h"
#include "kernels/torch/where.h"

namespace crumb::kernels {
namespace {

using at::Tensor;
using std::optional;

void check(const Tensor& student, const optional<Tensor>& teacher, const Tensor& targets) {
  TORCH_CHECK(student.dim() == 2 && student.is_contiguous(), "logits must be a contiguous [rows, vocab], got ",
              student.sizes());
  TORCH_CHECK(!teacher || (teacher->sizes() == student.sizes() && teacher->scalar_type() == student.scalar_type() &&
                           teacher->is_contiguous()),
              "the teacher's logits must be as the student's, ", student.sizes(), ", got ",
              teacher ? teacher->sizes() : at::IntArrayRef());
  TORCH_CHECK(targets.dim() == 1 && targets.size(0) == student.size(0) && targets.scalar_type() == at::kLong,
              "targets must be [", student.size(0), "] int64, got ", targets.sizes(), " ", targets.scalar_type());
  check_same_device("logits", student, {teacher.value_or(Tensor()), targets});
}

void check_loss(const Tensor& student, const optional<Tensor>& teacher, const Tensor& targets,
                const Tensor& row_weights, const LogitLossSpec& spec) {
  check(student, teacher, targets);
  TORCH_CHECK(teacher || !needs_teacher(spec.weights), "a divergence needs the teacher's logits");
  TORCH_CHECK(row_weights.sizes() == targets.sizes() && row_weights.scalar_type() == student.scalar_type(),
              "row_weights must be [", targets.size(0), "] ", student.scalar_type(), ", got ", row_weights.sizes(), " ",
              row_weights.scalar_type());
  check_same_device("logits", student, {row_weights});
}

// --- made of Torch's operators --------------------------------------------------------------------------------------

/// sum of p x over each row, 0 where p is 0 whatever x is.
Tensor expectation(const Tensor& p, const Tensor& x) { return (p * x.masked_fill(p == 0, 0)).sum(-1); }

/// q (difference - its expectation): how a divergence of Q from another distribution pulls at Q's logits.
Tensor pull(const Tensor& q, const Tensor& difference, const Tensor& divergence) {
  return q * (difference - divergence.unsqueeze(1)).masked_fill(q == 0, 0);
}

struct CompositeRows {
  Tensor gradient;                   // [rows, vocab]
  Tensor terms[kNumLossTerms] = {};  // [rows] each, undefined where not weighted
};

void add_divergences(const Tensor& student, const Tensor& teacher, const Tensor& targets, const LogitLossSpec& spec,
                     CompositeRows& out) {
  const auto& [w, temperature, beta] = spec;
  const double square = temperature * temperature;
  const Tensor log_p = (teacher / temperature).log_softmax(-1), log_q = (student / temperature).log_softmax(-1),
               p = log_p.exp(), q = log_q.exp();
  if (w.kl != 0 || w.cakld != 0) {
    const Tensor confidence = p.gather(1, targets.unsqueeze(1)), forward = (p * (log_p - log_q)).sum(-1) * square;
    if (w.kl != 0) out.terms[0] = forward;
    if (w.cakld != 0) out.terms[3] = forward * (1 - confidence.squeeze(1));
    out.gradient += (q - p) * ((w.kl + w.cakld * (1 - confidence)) * temperature);
  }
  if (w.reverse_kl != 0 || w.cakld != 0) {
    const Tensor confidence = p.gather(1, targets.unsqueeze(1)), difference = log_q - log_p,
                 reverse = (q * difference).sum(-1);
    if (w.reverse_kl != 0) out.terms[1] = reverse * square;
    if (w.cakld != 0) out.terms[3] += reverse * square * confidence.squeeze(1);
    out.gradient += q * (difference - reverse.unsqueeze(1)) * ((w.reverse_kl + w.cakld * confidence) * temperature);
  }
  if (w.jsd != 0) {
    const Tensor log_m = at::logaddexp(log_p + std::log(beta), log_q + std::log1p(-beta)), difference = log_q - log_m,
                 to_student = expectation(q, difference);
    out.terms[2] = (beta * expectation(p, log_p - log_m) + (1 - beta) * to_student) * square;
    out.gradient += pull(q, difference, to_student) * (w.jsd * (1 - beta) * temperature);
  }
}

Tensor loss_composite(const Tensor& student, const optional<Tensor>& teacher, const Tensor& targets,
                      const Tensor& row_weights, at::ArrayRef<double> weights, double temperature, double jsd_beta) {
  const LogitLossSpec spec = loss_spec(weights, temperature, jsd_beta);
  check_loss(student, teacher, targets, row_weights, spec);
  CompositeRows rows{.gradient = at::zeros_like(student)};
  if (needs_teacher(spec.weights)) add_divergences(student, *teacher, targets, spec, rows);
  if (spec.weights.cross_entropy != 0) {
    const Tensor log_q = student.log_softmax(-1), at = targets.unsqueeze(1);
    rows.terms[4] = -log_q.gather(1, at).squeeze(1);
    rows.gradient += log_q.exp().scatter_add(1, at, -at::ones_like(at, student.options())) * spec.weights.cross_entropy;
  }
  const Tensor left_out = row_weights == 0;
  student.copy_((rows.gradient * row_weights.unsqueeze(1)).masked_fill(left_out.unsqueeze(1), 0));
  std::vector<Tensor> terms;
  for (const Tensor& term : rows.terms) terms.push_back(term.defined() ? term : at::zeros_like(row_weights));
  return at::stack(terms, 1).to(at::kDouble).masked_fill(left_out.unsqueeze(1), 0);
}

Tensor scores_composite(const Tensor& student, const optional<Tensor>& teacher, const Tensor& targets) {
  check(student, teacher, targets);
  const auto sum = [](const Tensor& rows) { return rows.sum(at::kDouble); };
  const Tensor log_q = student.log_softmax(-1), top = student.argmax(-1);
  Tensor kl = at::zeros({}, student.options().dtype(at::kDouble)), same_top = kl;
  if (teacher) {
    const Tensor log_p = teacher->log_softmax(-1);
    kl = sum((log_p.exp() * (log_p - log_q)).sum(-1));
    same_top = sum(top == teacher->argmax(-1));
  }
  return at::stack({kl, -sum(log_q.gather(1, targets.unsqueeze(1))), same_top, sum(top == targets)});
}

// --- the kernels ----------------------------------------------------------------------------------------------------

template <class Where>
Tensor loss_on(const Tensor& student, const optional<Tensor>& teacher, const Tensor& targets, const Tensor& row_weights,
               at::ArrayRef<double> weights, double temperature, double jsd_beta) {
  if (student.scalar_type() != at::kFloat)
    return loss_composite(student, teacher, targets, row_weights, weights, temperature, jsd_beta);
  const LogitLossSpec spec = loss_spec(weights, temperature, jsd_beta);
  check_loss(student, teacher, targets, row_weights, spec);
  const Tensor target = targets.contiguous(), weight = row_weights.contiguous();
  static_assert(sizeof(LossTerms) == kNumLossTerms * sizeof(double), "a row of the result is a LossTerms");
  Tensor terms = at::empty({student.size(0), kNumLossTerms}, student.options().dtype(at::kDouble));
  logit_loss(mutable_data<float>(student), teacher ? mutable_data<float>(*teacher) : nullptr, data<int64_t>(target),
             data<float>(weight), student.size(0), student.size(1), spec, mutable_data<LossTerms>(terms),
             Where(student).get());
  return terms;
}

Tensor scores_cpu(const Tensor& student, const optional<Tensor>& teacher, const Tensor& targets) {
  if (student.scalar_type() != at::kFloat) return scores_composite(student, teacher, targets);
  check(student, teacher, targets);
  const Tensor target = targets.contiguous();
  std::vector<LogitScoreRow> rows(static_cast<size_t>(student.size(0)));
  kernels::logit_scores(data<float>(student), teacher ? data<float>(*teacher) : nullptr, data<int64_t>(target),
                        student.size(0), student.size(1), rows.data(), torch_executor());
  Tensor result = at::zeros({4}, student.options().dtype(at::kDouble));
  auto* sums = mutable_data<double>(result);
  for (size_t i = 0; i < rows.size(); ++i) {
    sums[0] += rows[i].kl;
    sums[1] += rows[i].cross_entropy;
    sums[2] += teacher && rows[i].student_top == rows[i].teacher_top ? 1 : 0;
    sums[3] += rows[i].student_top == data<int64_t>(target)[i] ? 1 : 0;
  }
  return result;
}

}  // namespace

std::vector<double> to_list(const LossTerms& terms) {
  std::vector<double> out;
  for (const LossTerm& term : kLossTerms) out.push_back(terms.*term.value);
  return out;
}

LogitLossSpec loss_spec(at::ArrayRef<double> weights, double temperature, double jsd_beta) {
  TORCH_CHECK(weights.size() == kNumLossTerms, "weights must be ", kNumLossTerms, " numbers, got ", weights.size());
  TORCH_CHECK(temperature > 0, "temperature must be more than 0, got ", temperature);
  TORCH_CHECK(jsd_beta >= 0 && jsd_beta <= 1, "jsd_beta must be in 0..1, got ", jsd_beta);
  LogitLossSpec spec{.temperature = temperature, .jsd_beta = jsd_beta};
  for (size_t i = 0; i < weights.size(); ++i) spec.weights.*kLossTerms[i].value = weights[i];
  return spec;
}

Tensor logit_loss_(const Tensor& student, const optional<Tensor>& teacher, const Tensor& targets,
                   const Tensor& row_weights, const LogitLossSpec& spec) {
  static const auto op = find_op<decltype(loss_composite)>("crumb::logit_loss_");
  return op.call(student, teacher, targets, row_weights, to_list(spec.weights), spec.temperature, spec.jsd_beta);
}

Tensor logit_scores(const Tensor& student, const optional<Tensor>& teacher, const Tensor& targets) {
  static const auto op = find_op<decltype(scores_cpu)>("crumb::logit_scores");
  return op.call(student, teacher, targets);
}

TORCH_LIBRARY_FRAGMENT(crumb, m) {
  m.def(
      "logit_loss_(Tensor(a!) student, Tensor(b!)? teacher, Tensor targets, Tensor row_weights, float[] weights,"
      " float temperature=1.0, float jsd_beta=0.5) -> Tensor");
  m.def("logit_scores(Tensor student, Tensor? teacher, Tensor targets) -> Tensor");
}
TORCH_LIBRARY_IMPL(crumb, CPU, m) {
  m.impl("logit_loss_", loss_on<Cpu>);
  m.impl("logit_scores", scores_cpu);
}
#ifdef CRUMB_CUDA_KERNELS
TORCH_LIBRARY_IMPL(crumb, CUDA, m) { m.impl("logit_loss_", loss_on<Cuda>); }
#endif
TORCH_LIBRARY_IMPL(crumb, CompositeExplicitAutograd, m) {
  m.impl("logit_loss_", loss_composite);
  m.impl("logit_scores", scores_composite);
}

}  // namespace crumb::kernels
