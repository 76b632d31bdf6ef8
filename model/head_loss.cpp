#include "model/head_loss.h"

#include <algorithm>
#include <vector>

#include "core/common/error.h"
#include "kernels/torch/executor.h"

namespace crumb::model {
namespace {

using kernels::LogitLossWeights;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kLogitsAtOnce = int64_t{1} << 22;
constexpr int64_t kMinChunk = 256;  // fewer rows would read the head too often for the work done

int64_t chunk_size(int64_t asked, int64_t vocab) {
  return asked > 0 ? asked : std::max(kMinChunk, kLogitsAtOnce / vocab);
}

HeadLossInput supervised_only(HeadLossInput input) {
  if (!input.mask.defined()) return input;
  const torch::Tensor rows = input.mask.nonzero().squeeze(1);
  if (rows.numel() == input.mask.numel()) return input;
  for (torch::Tensor* t : {&input.hidden, &input.teacher_hidden, &input.targets, &input.mask}) {
    if (t->defined()) *t = t->index_select(0, rows);
  }
  return input;
}

/// hidden * head^T for some rows, in the dtype of `hidden`. Reuses one buffer for all chunks.
///
/// Logits are never rounded to bfloat16: at a divergence of 0.02 nats they are a few hundredths apart, and the gradient
/// of rounded ones has a cosine of 0.991 with the exact one, of bfloat16 operands with float32 sums 0.9993. Torch has
/// the latter product on CUDA only; elsewhere float32 logits are products of float32.
class LogitMaker {
 public:
  LogitMaker(const torch::Tensor& hidden, const torch::Tensor& head, torch::ScalarType compute)
      : hidden_(hidden.detach()),
        transposed_(head.detach().to(hidden.is_cuda() ? operand_type(hidden, compute) : hidden.scalar_type()).t()) {}

  torch::Tensor rows(int64_t begin, int64_t count) {
    const torch::Tensor part = hidden_.narrow(0, begin, count).to(transposed_.scalar_type());
    if (part.scalar_type() != hidden_.scalar_type()) return at::mm(part, transposed_, hidden_.scalar_type());
    if (!buffer_.defined()) buffer_ = torch::empty({count, transposed_.size(1)}, hidden_.options());
    torch::Tensor out = buffer_.narrow(0, 0, count);
    torch::mm_out(out, part, transposed_);
    return out;
  }
  static torch::ScalarType operand_type(const torch::Tensor& hidden, torch::ScalarType compute) {
    return hidden.scalar_type() == torch::kFloat32 ? compute : hidden.scalar_type();
  }

 private:
  torch::Tensor hidden_, transposed_, buffer_;
};

/// kernels/kl.h works on float32 in the CPU's memory.
bool has_kernel(const torch::Tensor& hidden) { return hidden.is_cpu() && hidden.scalar_type() == torch::kFloat32; }

struct Sums {
  double kl = 0, cross_entropy = 0;  // weighted by the rows' weights
};

/// student [rows, vocab] becomes the gradient, by Torch operations: other devices and dtypes.
Sums composite_losses(torch::Tensor& student, const torch::Tensor& teacher, const torch::Tensor& targets,
                      const torch::Tensor& row_weights, const LogitLossWeights& w) {
  Sums sums;
  torch::Tensor gradient = torch::zeros_like(student);
  if (w.kl != 0) {
    const torch::Tensor log_p = (teacher / w.temperature).log_softmax(-1),
                        log_q = (student / w.temperature).log_softmax(-1), p = log_p.exp();
    sums.kl = ((p * (log_p - log_q)).sum(-1) * row_weights).sum().item<double>() * w.temperature * w.temperature;
    gradient += (log_q.exp() - p) * (w.kl * w.temperature);
  }
  if (w.cross_entropy != 0) {
    const torch::Tensor log_q = student.log_softmax(-1), at = targets.unsqueeze(1);
    sums.cross_entropy = -(log_q.gather(1, at).squeeze(1) * row_weights).sum().item<double>();
    gradient += log_q.exp().scatter_add(1, at, -torch::ones_like(at, student.options())) * w.cross_entropy;
  }
  student.copy_(gradient * row_weights.unsqueeze(1));
  return sums;
}

Sums kernel_losses(torch::Tensor& student, const torch::Tensor& teacher, const torch::Tensor& targets,
                   const torch::Tensor& row_weights, const LogitLossWeights& w) {
  std::vector<kernels::LogitLossRow> rows(static_cast<size_t>(student.size(0)));
  const float* weight = row_weights.data_ptr<float>();
  kernels::logit_loss(student.data_ptr<float>(), teacher.defined() ? teacher.data_ptr<float>() : nullptr,
                      targets.data_ptr<int64_t>(), weight, student.size(0), student.size(1), w, rows.data(),
                      kernels::torch_executor());
  Sums sums;
  for (size_t i = 0; i < rows.size(); ++i) {
    sums.kl += rows[i].kl * weight[i];
    sums.cross_entropy += rows[i].cross_entropy * weight[i];
  }
  return sums;
}

struct Job {
  HeadLossInput input;
  LogitLossWeights weights;
  torch::Tensor row_weights;  // [n], dtype of hidden
  int64_t chunk = 0;
  bool train_hidden = false, train_head = false;
  Sums sums;
};

void multiply_into(torch::Tensor out, const torch::Tensor& a, const torch::Tensor& b) {
  if (out.scalar_type() == a.scalar_type())
    torch::mm_out(out, a, b);
  else
    out.copy_(torch::mm(a, b));
}

void multiply_add(torch::Tensor& sum, const torch::Tensor& a, const torch::Tensor& b) {
  if (sum.scalar_type() == a.scalar_type())
    sum.addmm_(a, b);
  else
    sum += torch::mm(a, b);
}

/// Gradients of hidden and head (undefined where not wanted); fills job.sums.
std::pair<torch::Tensor, torch::Tensor> run(Job& job) {
  const HeadLossInput& in = job.input;
  const auto dtype = LogitMaker::operand_type(in.hidden, in.compute);
  const torch::Tensor hidden = in.hidden.detach(), head = in.head.detach().to(dtype);
  LogitMaker student(in.hidden, in.head, in.compute);
  std::optional<LogitMaker> teacher;
  if (job.weights.kl != 0) teacher.emplace(in.teacher_hidden, in.teacher_head, in.compute);
  torch::Tensor grad_hidden, grad_head;
  if (job.train_hidden) grad_hidden = torch::empty_like(hidden);
  if (job.train_head) grad_head = torch::zeros_like(in.head.detach());
  for (int64_t begin = 0; begin < hidden.size(0); begin += job.chunk) {
    const int64_t count = std::min(job.chunk, hidden.size(0) - begin);
    const auto part = [&](const torch::Tensor& x) { return x.narrow(0, begin, count); };
    torch::Tensor logits = student.rows(begin, count);
    const torch::Tensor teacher_logits = teacher ? teacher->rows(begin, count) : torch::Tensor();
    const auto losses = has_kernel(in.hidden) ? kernel_losses : composite_losses;
    const Sums sums = losses(logits, teacher_logits, part(in.targets), part(job.row_weights), job.weights);
    job.sums.kl += sums.kl;
    job.sums.cross_entropy += sums.cross_entropy;
    const torch::Tensor gradient = logits.to(dtype);
    if (job.train_hidden) multiply_into(part(grad_hidden), gradient, head);
    if (job.train_head) multiply_add(grad_head, gradient.t(), part(hidden).to(dtype));
  }
  return {grad_hidden, grad_head};
}

/// `grad` times the scalar that arrives in the backward pass, which is nearly always 1.
torch::Tensor chained(const torch::Tensor& grad, const torch::Tensor& outer) {
  return !grad.defined() || outer.item<double>() == 1.0 ? grad : grad * outer.to(grad.scalar_type());
}

struct HeadLossFunction : torch::autograd::Function<HeadLossFunction> {
  static torch::Tensor forward(AutogradContext* ctx, const torch::Tensor& hidden, const torch::Tensor& /*head*/,
                               Job* job) {
    const auto [grad_hidden, grad_head] = run(*job);
    if (grad_hidden.defined()) ctx->saved_data["hidden"] = grad_hidden;
    if (grad_head.defined()) ctx->saved_data["head"] = grad_head;
    const double total = job->weights.kl * job->sums.kl + job->weights.cross_entropy * job->sums.cross_entropy;
    return torch::full({}, total, hidden.options());
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto take = [&](const char* name) {
      const auto found = ctx->saved_data.find(name);
      return found == ctx->saved_data.end() ? torch::Tensor() : chained(found->second.toTensor(), grads[0]);
    };
    variable_list out{take("hidden"), take("head"), {}};
    ctx->saved_data.clear();
    return out;
  }
};

}  // namespace

HeadLoss head_loss(const HeadLossInput& input, const LogitLossWeights& weights, double total_supervised,
                   int64_t chunk_tokens) {
  CRUMB_ASSERT(input.hidden.dim() == 2 && (weights.kl == 0 || input.teacher_hidden.defined()));
  Job job{.input = supervised_only(input), .weights = weights, .row_weights = {}, .sums = {}};
  const HeadLossInput& in = job.input;
  const torch::Tensor mask = in.mask.defined() ? in.mask : torch::ones({in.hidden.size(0)}, in.hidden.options());
  job.row_weights = (mask.to(in.hidden.scalar_type()) / total_supervised).contiguous();
  job.input.targets = in.targets.contiguous();
  job.chunk = chunk_size(chunk_tokens, in.head.size(0));
  job.train_hidden = torch::GradMode::is_enabled() && in.hidden.requires_grad();
  job.train_head = torch::GradMode::is_enabled() && in.head.requires_grad();
  const torch::Tensor total = HeadLossFunction::apply(in.hidden, in.head, &job);
  return {.total = total, .kl = job.sums.kl, .cross_entropy = job.sums.cross_entropy};
}

namespace {

/// Adds the scores of rows [rows, vocab]; both logits are used as scratch.
void kernel_scores(torch::Tensor& student, torch::Tensor& teacher, const torch::Tensor& targets, HeadScores& sums) {
  const bool has_teacher = teacher.defined();
  const int64_t* target = targets.data_ptr<int64_t>();
  std::vector<kernels::LogitScoreRow> rows(static_cast<size_t>(student.size(0)));
  kernels::logit_scores(student.data_ptr<float>(), has_teacher ? teacher.data_ptr<float>() : nullptr, target,
                        student.size(0), student.size(1), rows.data(), kernels::torch_executor());
  for (size_t i = 0; i < rows.size(); ++i) {
    sums.cross_entropy += rows[i].cross_entropy;
    sums.kl += rows[i].kl;
    sums.same_top += has_teacher && rows[i].student_top == rows[i].teacher_top ? 1 : 0;
    sums.top_is_target += rows[i].student_top == target[i] ? 1 : 0;
  }
}

/// The same by Torch operations; the sums leave the device together.
void composite_scores(torch::Tensor& student, torch::Tensor& teacher, const torch::Tensor& targets, HeadScores& sums) {
  const auto sum = [](const torch::Tensor& rows) { return rows.sum(torch::kFloat64); };
  const torch::Tensor log_q = student.log_softmax(-1), top = student.argmax(-1), at = targets.unsqueeze(1);
  std::vector<torch::Tensor> parts{-sum(log_q.gather(1, at)), sum(top == targets)};
  if (teacher.defined()) {
    const torch::Tensor log_p = teacher.log_softmax(-1);
    parts.push_back(sum((log_p.exp() * (log_p - log_q)).sum(-1)));
    parts.push_back(sum(top == teacher.argmax(-1)));
  }
  const torch::Tensor values = torch::stack(parts).cpu();
  const auto value = [&](int64_t i) { return i < values.numel() ? values[i].item<double>() : 0.0; };
  sums.cross_entropy += value(0);
  sums.top_is_target += value(1);
  sums.kl += value(2);
  sums.same_top += value(3);
}

}  // namespace

HeadScores head_scores(const HeadLossInput& input, int64_t chunk_tokens) {
  const torch::NoGradGuard no_grad;
  const HeadLossInput in = supervised_only(input);
  const bool has_teacher = in.teacher_hidden.defined();
  HeadScores sums;
  const int64_t n = in.hidden.size(0), chunk = chunk_size(chunk_tokens, in.head.size(0));
  LogitMaker student(in.hidden, in.head, torch::kFloat32);
  std::optional<LogitMaker> teacher;
  if (has_teacher) teacher.emplace(in.teacher_hidden, in.teacher_head, torch::kFloat32);
  const auto scores = has_kernel(in.hidden) ? kernel_scores : composite_scores;
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const int64_t count = std::min(chunk, n - begin);
    torch::Tensor logits = student.rows(begin, count);
    torch::Tensor teacher_logits = has_teacher ? teacher->rows(begin, count) : torch::Tensor();
    scores(logits, teacher_logits, in.targets.narrow(0, begin, count).contiguous(), sums);
  }
  sums.tokens = static_cast<double>(n);
  return sums;
}

}  // namespace crumb::model
