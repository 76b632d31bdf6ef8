#include "kernels/torch/head_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

#include "kernels/torch/op.h"

namespace crumb::kernels {
namespace {

using at::Tensor;
using std::optional;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Of one chunk: what a CPU's cache helps with, and what fills a GPU.
constexpr int64_t kLogitsAtOnce = int64_t{1} << 22, kLogitsAtOnceOnDevice = int64_t{1} << 26;
constexpr int64_t kMinChunk = 256;  // fewer rows would read the head too often for the work done

/// The type of the operands of products that may be rounded.
at::ScalarType operand_type(const Tensor& hidden, at::ScalarType compute) {
  return hidden.scalar_type() == at::kFloat ? compute : hidden.scalar_type();
}

// --- logits ---------------------------------------------------------------------------------------------------------
//
// They are never rounded to bfloat16: at a divergence of 0.02 nats they are a few hundredths apart, and the gradient of
// rounded ones has a cosine of 0.991 with the exact one, of bfloat16 operands with float32 sums 0.9993. Torch has the
// latter product on CUDA only; elsewhere float32 logits are products of float32.

Tensor head_operand_as_it_is(const Tensor& head, at::ScalarType /*type*/) { return head; }
Tensor head_operand_cuda(const Tensor& head, at::ScalarType type) { return head.to(type); }

/// The head as the logits' products take it, made once for all chunks.
Tensor head_operand(const Tensor& head, at::ScalarType type) {
  static const auto op = find_op<decltype(head_operand_cuda)>("crumb::head_operand");
  return op.call(head, type);
}

/// hidden * head^T for some rows, in the type of `hidden`. Reuses one buffer for all chunks.
class LogitMaker {
 public:
  LogitMaker(const Tensor& hidden, const Tensor& head, at::ScalarType compute)
      : hidden_(hidden), transposed_(head_operand(head, operand_type(hidden, compute)).t()) {}

  Tensor rows(int64_t begin, int64_t count) {
    const Tensor part = hidden_.narrow(0, begin, count).to(transposed_.scalar_type());
    if (part.scalar_type() != hidden_.scalar_type()) return at::mm(part, transposed_, hidden_.scalar_type());
    if (!buffer_.defined()) buffer_ = at::empty({count, transposed_.size(1)}, hidden_.options());
    Tensor out = buffer_.narrow(0, 0, count);
    at::mm_out(out, part, transposed_);
    return out;
  }

 private:
  Tensor hidden_, transposed_, buffer_;
};

optional<LogitMaker> teacher_logits(const optional<Tensor>& hidden, const optional<Tensor>& head,
                                    at::ScalarType compute) {
  TORCH_CHECK(hidden.has_value() == head.has_value(), "a teacher is both its hidden states and its head");
  return hidden ? optional(LogitMaker(*hidden, *head, compute)) : std::nullopt;
}

// --- losses with gradients ------------------------------------------------------------------------------------------

void multiply_into(Tensor out, const Tensor& a, const Tensor& b) {
  if (out.scalar_type() == a.scalar_type())
    at::mm_out(out, a, b);
  else
    out.copy_(at::mm(a, b));
}

void multiply_add(Tensor& sum, const Tensor& a, const Tensor& b) {
  if (sum.scalar_type() == a.scalar_type())
    sum.addmm_(a, b);
  else
    sum += at::mm(a, b);
}

/// terms, gradient of hidden, gradient of head; gradients are empty unless asked for.
std::tuple<Tensor, Tensor, Tensor> gradients_composite(const Tensor& hidden, const Tensor& head,
                                                       const optional<Tensor>& teacher_hidden,
                                                       const optional<Tensor>& teacher_head, const Tensor& targets,
                                                       const Tensor& row_weights, at::ArrayRef<double> weights,
                                                       double temperature, double jsd_beta, int64_t chunk_tokens,
                                                       at::ScalarType compute, bool hidden_gradient,
                                                       bool head_gradient) {
  const LogitLossSpec spec = loss_spec(weights, temperature, jsd_beta);
  const auto type = operand_type(hidden, compute);
  const int64_t n = hidden.size(0), chunk = logit_chunk(chunk_tokens, head.size(0), head.is_cpu());
  LogitMaker student(hidden, head, compute);
  optional<LogitMaker> teacher;
  if (needs_teacher(spec.weights)) teacher = teacher_logits(teacher_hidden, teacher_head, compute);
  const Tensor operand = hidden_gradient ? head.to(type) : Tensor();
  Tensor terms = at::zeros({kNumLossTerms}, hidden.options().dtype(at::kDouble));
  Tensor grad_hidden = hidden_gradient ? at::empty_like(hidden) : at::empty({0}, hidden.options());
  Tensor grad_head = head_gradient ? at::zeros_like(head) : at::empty({0}, head.options());
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const int64_t count = std::min(chunk, n - begin);
    const auto part = [&](const Tensor& x) { return x.narrow(0, begin, count); };
    const Tensor logits = student.rows(begin, count);
    const auto teachers = teacher ? optional(teacher->rows(begin, count)) : std::nullopt;
    const Tensor row_terms = logit_loss_(logits, teachers, part(targets), part(row_weights), spec);
    terms += (row_terms * part(row_weights).unsqueeze(1)).sum(0);
    const Tensor gradient = logits.to(type);
    if (hidden_gradient) multiply_into(part(grad_hidden), gradient, operand);
    if (head_gradient) multiply_add(grad_head, gradient.t(), part(hidden).to(type));
  }
  return {terms, grad_hidden, grad_head};
}

std::tuple<Tensor, Tensor, Tensor> head_loss_gradients(const HeadLossArguments& a, bool hidden_gradient,
                                                       bool head_gradient) {
  static const auto op = find_op<decltype(gradients_composite)>("crumb::head_loss_gradients");
  return op.call(a.hidden, a.head, a.teacher_hidden, a.teacher_head, a.targets, a.row_weights, to_list(a.spec.weights),
                 a.spec.temperature, a.spec.jsd_beta, a.chunk_tokens, a.compute, hidden_gradient, head_gradient);
}

Tensor weighted(const Tensor& terms, const LogitLossSpec& spec, at::ScalarType type) {
  return (terms * at::tensor(to_list(spec.weights), terms.options())).sum().to(type);
}

// --- autograd -------------------------------------------------------------------------------------------------------

/// `grad` times the scalar that arrives in the backward pass, which is nearly always 1.
Tensor chained(const Tensor& grad, const Tensor& outer) {
  return outer.item<double>() == 1.0 ? grad : grad * outer.to(grad.scalar_type());
}

struct HeadLoss : torch::autograd::Function<HeadLoss> {
  static variable_list forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& /*head*/,
                               const HeadLossArguments* arguments, bool hidden_gradient, bool head_gradient) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto [terms, grad_hidden, grad_head] = head_loss_gradients(*arguments, hidden_gradient, head_gradient);
    if (hidden_gradient) ctx->saved_data["hidden"] = grad_hidden;
    if (head_gradient) ctx->saved_data["head"] = grad_head;
    ctx->mark_non_differentiable({terms});
    return {weighted(terms, arguments->spec, hidden.scalar_type()), terms};
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto take = [&](const char* name) {
      const auto found = ctx->saved_data.find(name);
      return found == ctx->saved_data.end() ? Tensor() : chained(found->second.toTensor(), grads[0]);
    };
    variable_list out{take("hidden"), take("head"), {}, {}, {}};
    ctx->saved_data.clear();
    return out;
  }
};

/// The arguments as the schema has them.
HeadLossArguments packed(const Tensor& hidden, const Tensor& head, const optional<Tensor>& teacher_hidden,
                         const optional<Tensor>& teacher_head, const Tensor& targets, const Tensor& row_weights,
                         at::ArrayRef<double> weights, double temperature, double jsd_beta, int64_t chunk_tokens,
                         at::ScalarType compute) {
  return {.hidden = hidden,
          .head = head,
          .teacher_hidden = teacher_hidden,
          .teacher_head = teacher_head,
          .targets = targets,
          .row_weights = row_weights,
          .spec = loss_spec(weights, temperature, jsd_beta),
          .chunk_tokens = chunk_tokens,
          .compute = compute};
}

std::tuple<Tensor, Tensor> loss_without_gradients(const Tensor& hidden, const Tensor& head,
                                                  const optional<Tensor>& teacher_hidden,
                                                  const optional<Tensor>& teacher_head, const Tensor& targets,
                                                  const Tensor& row_weights, at::ArrayRef<double> weights,
                                                  double temperature, double jsd_beta, int64_t chunk_tokens,
                                                  at::ScalarType compute) {
  const HeadLossArguments a = packed(hidden, head, teacher_hidden, teacher_head, targets, row_weights, weights,
                                     temperature, jsd_beta, chunk_tokens, compute);
  const Tensor terms = std::get<0>(head_loss_gradients(a, false, false));
  return {weighted(terms, a.spec, hidden.scalar_type()), terms};
}

std::tuple<Tensor, Tensor> loss_autograd(const Tensor& hidden, const Tensor& head,
                                         const optional<Tensor>& teacher_hidden, const optional<Tensor>& teacher_head,
                                         const Tensor& targets, const Tensor& row_weights, at::ArrayRef<double> weights,
                                         double temperature, double jsd_beta, int64_t chunk_tokens,
                                         at::ScalarType compute) {
  const HeadLossArguments a = packed(hidden, head, teacher_hidden, teacher_head, targets, row_weights, weights,
                                     temperature, jsd_beta, chunk_tokens, compute);
  const auto wanted = [](const Tensor& x) { return at::GradMode::is_enabled() && x.requires_grad(); };
  const variable_list out = HeadLoss::apply(hidden, head, &a, wanted(hidden), wanted(head));
  return {out[0], out[1]};
}

// --- scores ---------------------------------------------------------------------------------------------------------

Tensor scores_composite(const Tensor& hidden, const Tensor& head, const optional<Tensor>& teacher_hidden,
                        const optional<Tensor>& teacher_head, const Tensor& targets, int64_t chunk_tokens) {
  LogitMaker student(hidden, head, hidden.scalar_type());
  optional<LogitMaker> teacher = teacher_logits(teacher_hidden, teacher_head, hidden.scalar_type());
  const int64_t n = hidden.size(0), chunk = logit_chunk(chunk_tokens, head.size(0), head.is_cpu());
  Tensor sums = at::zeros({4}, hidden.options().dtype(at::kDouble));
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const int64_t count = std::min(chunk, n - begin);
    const auto teachers = teacher ? optional(teacher->rows(begin, count)) : std::nullopt;
    sums += logit_scores(student.rows(begin, count), teachers, targets.narrow(0, begin, count));
  }
  return sums;
}

}  // namespace

int64_t logit_chunk(int64_t asked, int64_t vocab, bool on_cpu) {
  return asked > 0 ? asked : std::max(kMinChunk, (on_cpu ? kLogitsAtOnce : kLogitsAtOnceOnDevice) / vocab);
}

std::tuple<Tensor, Tensor> head_loss(const HeadLossArguments& a) {
  static const auto op = find_op<decltype(loss_autograd)>("crumb::head_loss");
  return op.call(a.hidden, a.head, a.teacher_hidden, a.teacher_head, a.targets, a.row_weights, to_list(a.spec.weights),
                 a.spec.temperature, a.spec.jsd_beta, a.chunk_tokens, a.compute);
}

Tensor head_scores(const Tensor& hidden, const Tensor& head, const optional<Tensor>& teacher_hidden,
                   const optional<Tensor>& teacher_head, const Tensor& targets, int64_t chunk_tokens) {
  static const auto op = find_op<decltype(scores_composite)>("crumb::head_scores");
  return op.call(hidden, head, teacher_hidden, teacher_head, targets, chunk_tokens);
}

TORCH_LIBRARY_FRAGMENT(crumb, m) {
  m.def("head_operand(Tensor(a) head, ScalarType dtype) -> Tensor(a)");
  m.def(
      "head_loss_gradients(Tensor hidden, Tensor head, Tensor? teacher_hidden, Tensor? teacher_head, Tensor targets,"
      " Tensor row_weights, float[] weights, float temperature, float jsd_beta, int chunk_tokens, ScalarType compute,"
      " bool hidden_gradient, bool head_gradient) -> (Tensor, Tensor, Tensor)");
  m.def(
      "head_loss(Tensor hidden, Tensor head, Tensor? teacher_hidden, Tensor? teacher_head, Tensor targets,"
      " Tensor row_weights, float[] weights, float temperature=1.0, float jsd_beta=0.5, int chunk_tokens=0,"
      " ScalarType compute=float32) -> (Tensor total, Tensor terms)");
  m.def(
      "head_scores(Tensor hidden, Tensor head, Tensor? teacher_hidden, Tensor? teacher_head, Tensor targets,"
      " int chunk_tokens=0) -> Tensor");
}
TORCH_LIBRARY_IMPL(crumb, CompositeExplicitAutograd, m) {
  m.impl("head_operand", head_operand_as_it_is);
  m.impl("head_loss_gradients", gradients_composite);
  m.impl("head_loss", loss_without_gradients);
  m.impl("head_scores", scores_composite);
}
TORCH_LIBRARY_IMPL(crumb, CUDA, m) { m.impl("head_operand", head_operand_cuda); }
TORCH_LIBRARY_IMPL(crumb, Autograd, m) { m.impl("head_loss", loss_autograd); }

}  // namespace crumb::kernels
