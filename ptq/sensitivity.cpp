#include "ptq/sensitivity.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "core/common/error.h"
#include "core/common/progress.h"
#include "model/head_loss.h"
#include "ptq/block_walk.h"
#include "ptq/gram.h"
#include "ptq/nearest.h"

namespace crumb::ptq {
namespace {

using arch::TensorDesc;
using arch::TensorId;

/// Squared gradients by the outputs of a linear.
struct OutputGradients {
  torch::Tensor rows;    // [rows] float64: over all tokens
  torch::Tensor tokens;  // [windows, tokens] float32: over all rows
};

/// A float linear that looks at the gradients by its outputs.
class ProbedLinear : public model::LinearModule {
 public:
  ProbedLinear(torch::Tensor w, torch::Tensor b) {
    weight = register_parameter("weight", std::move(w), false);
    if (b.defined()) bias = register_parameter("bias", std::move(b), false);
  }
  torch::Tensor forward(const torch::Tensor& x) override {
    torch::Tensor y = torch::linear(x, weight.to(x.scalar_type()), effective_bias(x.scalar_type()));
    y.register_hook([this](const torch::Tensor& gradient) {
      const torch::Tensor square = gradient[0].square();
      gradients.rows += square.sum(0, false, torch::kFloat64);
      gradients.tokens[window].copy_(square.sum(1));
    });
    return y;
  }
  torch::Tensor effective_weight() override { return weight; }

  OutputGradients gradients;
  int64_t window = 0;
};

/// A label for each position, drawn from the model's predictions.
torch::Tensor draw_labels(const torch::Tensor& hidden, const torch::Tensor& head, at::Generator& generator) {
  constexpr int64_t kPositionsAtOnce = 256;
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> labels;
  for (const auto& part : hidden.split(kPositionsAtOnce))
    labels.push_back(torch::multinomial(part.mm(head.t()).softmax(1), 1, true, generator).squeeze(1));
  return torch::cat(labels);
}

std::map<TensorId, OutputGradients> measure_gradients(const quant::Checkpoint& model,
                                                      const CalibrationTokens& calibration) {
  constexpr uint64_t kSeed = 1;
  std::map<std::string, std::shared_ptr<ProbedLinear>> probes;
  model::Decoder decoder(model.spec(), model::checkpoint_source(model),
                         [&](const std::string& name, torch::Tensor w, torch::Tensor b) {
                           auto probe = std::make_shared<ProbedLinear>(std::move(w), std::move(b));
                           probe->gradients = {torch::zeros({probe->weight.size(0)}, torch::kFloat64),
                                               torch::zeros({calibration.windows, calibration.length})};
                           return probes[name] = probe;
                         });
  decoder.round_small_tensors = true;
  for (const auto& parameter : decoder.parameters()) parameter.set_requires_grad(false);
  // What every linear depends on, and small: without it there would be no gradient at all.
  decoder.parameter(model.tensor(TensorId{arch::Slot::attention_norm, 0}).desc).set_requires_grad(true);
  at::Generator generator = at::detail::createCPUGenerator(kSeed);
  Progress progress("sensitivity", calibration.windows, "windows");
  for (int64_t window = 0; window < calibration.windows; ++window) {
    for (const auto& [name, probe] : probes) probe->window = window;
    const auto* ids = calibration.ids.data() + window * calibration.length;
    const std::vector<int64_t> wide(ids, ids + calibration.length);
    const torch::Tensor hidden = decoder.forward(torch::tensor(wide).unsqueeze(0)).final_hidden.squeeze(0);
    const torch::Tensor head = decoder.head_weight();
    const model::HeadLossInput input{.hidden = hidden,
                                     .head = head,
                                     .teacher_hidden = {},
                                     .teacher_head = {},
                                     .targets = draw_labels(hidden.detach(), head, generator),
                                     .mask = {}};
    model::head_loss(input, {.weights = {.cross_entropy = 1}}, 1).total.backward();
    progress.update(window + 1);
  }
  progress.finish();
  std::map<TensorId, OutputGradients> out;
  for (const auto& stored : model.tensors()) {
    const auto found = probes.find(stored.desc.module_name());
    if (found == probes.end() || stored.desc.role != arch::TensorRole::linear) continue;
    const bool is_finite = found->second->gradients.rows.isfinite().all().item<bool>();
    if (!is_finite) user_error("{}: gradients by its outputs are not finite on the calibration text", found->first);
    out[stored.desc.id] = found->second->gradients;
  }
  return out;
}

/// [cols, cols] float32: mean over tokens of weight * x x^T. input [windows, tokens, cols], weights [windows, tokens].
torch::Tensor weighted_gram(const torch::Tensor& input, const torch::Tensor& weights, int64_t windows_at_once) {
  const int64_t cols = input.size(2);
  GramSum gram(cols);
  for_each_batch(input.size(0), windows_at_once, [&](int64_t begin, int64_t end) {
    const torch::Tensor x =
        input.slice(0, begin, end).reshape({-1, cols}) * weights.slice(0, begin, end).reshape({-1, 1}).sqrt();
    gram.add(x);
  });
  return gram.mean(input.size(0) * input.size(1));
}

double predicted_kl(const torch::Tensor& error, const torch::Tensor& gram, const torch::Tensor& row_shares) {
  const torch::Tensor rows = error.mm(gram).mul_(error).sum(1, false, torch::kFloat64);
  return 0.5 * std::max(0.0, rows.dot(row_shares).item<double>());
}

class Measurement {
 public:
  Measurement(const quant::Checkpoint& model, const std::vector<BudgetLinear>& linears,
              std::map<TensorId, OutputGradients> gradients)
      : gradients_(std::move(gradients)), table_(arch::tensor_table(model.spec())), model_(model) {
    for (const auto& linear : linears) linears_[linear.desc.id] = &linear;
  }

  std::map<TensorId, std::vector<double>> run(const CalibrationTokens& calibration, ActivationMemory& memory) {
    const torch::NoGradGuard no_grad;
    const auto& embedding = model_.tensor(TensorId{arch::Slot::embedding});
    torch::Tensor residual = embed(calibration, embedding.desc.cols(), memory, [&](int64_t token, float* out) {
      model_.read_rows(embedding, token, token + 1, out);
    });
    const auto layers = static_cast<int>(model_.spec().num_layers());
    Progress progress("budget", layers, "blocks");
    for (int layer = 0; layer < layers; ++layer) {
      const auto block = make_block(model_.spec(), layer, table_, model::checkpoint_source(model_));
      BlockWork work = make_work(layer, *block, residual, memory);
      for (GroupedPass pass(work); !pass.is_done(); pass.advance()) measure_group(work, pass);
      residual = work.residual;
      progress.update(layer + 1);
    }
    progress.finish();
    return std::move(losses_);
  }

 private:
  void measure_group(const BlockWork& work, const GroupedPass& pass) {
    std::vector<const BudgetLinear*> group;
    for (const arch::Slot slot : pass.group()) {
      const auto found = linears_.find(TensorId{slot, work.layer});
      if (found != linears_.end()) group.push_back(found->second);
    }
    if (group.empty()) return;
    const torch::Tensor gram = measure_inputs(pass.input(), work.windows_at_once, 0, group[0]->desc.module_name()).gram;
    for (const BudgetLinear* linear : group) {
      const torch::Tensor w = work.linear(linear->desc.id.slot)->weight.detach();
      losses_[linear->desc.id] = losses_of(*linear, w, gram.diagonal(), judge_of(*linear, w, gram, work, pass));
    }
  }

  /// What loss the quantized weights of this linear mean.
  std::function<double(const torch::Tensor&)> judge_of(const BudgetLinear& linear, const torch::Tensor& w,
                                                       const torch::Tensor& gram, const BlockWork& work,
                                                       const GroupedPass& pass) const {
    if (gradients_.empty()) {
      return [=, weights = static_cast<double>(w.numel())](const torch::Tensor& q) {
        return output_error(w, q, gram).relative() * weights;
      };
    }
    const OutputGradients& gradients = gradients_.at(linear.desc.id);
    const double sum = gradients.rows.sum().item<double>();
    const torch::Tensor shares = sum > 0 ? gradients.rows / sum : torch::zeros_like(gradients.rows);
    const torch::Tensor weighted = weighted_gram(pass.input(), gradients.tokens, work.windows_at_once);
    return [=](const torch::Tensor& q) { return predicted_kl(w - q, weighted, shares); };
  }

  static std::vector<double> losses_of(const BudgetLinear& linear, const torch::Tensor& w, const torch::Tensor& energy,
                                       const std::function<double(const torch::Tensor&)>& judge) {
    std::vector<double> losses;
    for (const auto& format : linear.formats) {
      const auto codes = weighted_nearest(w, energy, format, format.grid.facts().inits.back());
      losses.push_back(judge(dequantized(codes)));
      if (!std::isfinite(losses.back()))
        user_error("{}: what its rounding loses is not finite on the calibration text", linear.desc.module_name());
    }
    return losses;
  }

  std::map<TensorId, OutputGradients> gradients_;  // none: judged by their share of the output
  std::vector<TensorDesc> table_;
  const quant::Checkpoint& model_;
  std::map<TensorId, const BudgetLinear*> linears_;
  std::map<TensorId, std::vector<double>> losses_;
};

}  // namespace

std::vector<std::vector<double>> measure_losses(const quant::Checkpoint& model,
                                                const std::vector<BudgetLinear>& linears,
                                                const CalibrationTokens& calibration, const std::string& sensitivity,
                                                ActivationMemory& memory, ThreadPool& pool) {
  at::set_num_threads(pool.num_threads());
  std::map<TensorId, OutputGradients> gradients;
  if (sensitivity == "fisher") gradients = measure_gradients(model, calibration);
  auto measured = Measurement(model, linears, std::move(gradients)).run(calibration, memory);
  std::vector<std::vector<double>> losses;
  for (const auto& linear : linears) losses.push_back(std::move(measured.at(linear.desc.id)));
  return losses;
}

}  // namespace crumb::ptq
