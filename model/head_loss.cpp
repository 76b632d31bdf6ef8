#include "model/head_loss.h"

#include "core/common/error.h"
#include "kernels/torch/head_loss.h"

namespace crumb::model {
namespace {

HeadLossInput supervised_only(HeadLossInput input) {
  if (!input.mask.defined()) return input;
  const torch::Tensor rows = input.mask.nonzero().squeeze(1);
  if (rows.numel() == input.mask.numel()) return input;
  for (torch::Tensor* t : {&input.hidden, &input.teacher_hidden, &input.targets, &input.mask}) {
    if (t->defined()) *t = t->index_select(0, rows);
  }
  return input;
}

std::optional<torch::Tensor> if_defined(const torch::Tensor& x) {
  return x.defined() ? std::optional(x) : std::nullopt;
}

/// The teacher's head counts only with its hidden states.
std::optional<torch::Tensor> teacher_head(const HeadLossInput& in) {
  return in.teacher_hidden.defined() ? std::optional(in.teacher_head) : std::nullopt;
}

kernels::LossTerms to_terms(const torch::Tensor& values) {
  const torch::Tensor on_cpu = values.cpu();
  kernels::LossTerms terms;
  for (int64_t i = 0; i < kernels::kNumLossTerms; ++i)
    terms.*kernels::kLossTerms[i].value = on_cpu.const_data_ptr<double>()[i];
  return terms;
}

}  // namespace

HeadLoss head_loss(const HeadLossInput& input, const kernels::LogitLossSpec& spec, double total_supervised,
                   int64_t chunk_tokens) {
  CRUMB_ASSERT(input.hidden.dim() == 2 && (!kernels::needs_teacher(spec.weights) || input.teacher_hidden.defined()));
  const HeadLossInput in = supervised_only(input);
  const torch::Tensor mask = in.mask.defined() ? in.mask : torch::ones({in.hidden.size(0)}, in.hidden.options());
  const auto [total, terms] = kernels::head_loss({.hidden = in.hidden,
                                                  .head = in.head,
                                                  .teacher_hidden = if_defined(in.teacher_hidden),
                                                  .teacher_head = teacher_head(in),
                                                  .targets = in.targets,
                                                  .row_weights = mask.to(in.hidden.scalar_type()) / total_supervised,
                                                  .spec = spec,
                                                  .chunk_tokens = chunk_tokens,
                                                  .compute = in.compute});
  return {.total = total, .terms = to_terms(terms)};
}

HeadScores head_scores(const HeadLossInput& input, int64_t chunk_tokens) {
  const torch::NoGradGuard no_grad;
  const HeadLossInput in = supervised_only(input);
  const torch::Tensor sums = kernels::head_scores(in.hidden, in.head, if_defined(in.teacher_hidden), teacher_head(in),
                                                  in.targets, chunk_tokens)
                                 .cpu();
  const auto* values = sums.const_data_ptr<double>();
  return {.tokens = static_cast<double>(in.hidden.size(0)),
          .cross_entropy = values[1],
          .kl = values[0],
          .same_top = values[2],
          .top_is_target = values[3]};
}

}  // namespace crumb::model
