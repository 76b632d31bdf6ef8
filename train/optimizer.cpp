#include "train/optimizer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "core/common/error.h"
#include "kernels/torch/adamw.h"
#include "train/muon.h"

namespace crumb::train {
namespace {

constexpr int64_t kGrain = 16384;  // of the blocks of the norm, whose sum must not depend on threads

kernels::AdamWStep step_constants(const OptimizerOptions& options, double lr, double weight_decay,
                                  double gradient_factor, int64_t t) {
  const double beta1 = options.betas[0], beta2 = options.betas[1];
  return {.gradient_factor = static_cast<float>(gradient_factor),
          .beta1 = static_cast<float>(beta1),
          .beta2 = static_cast<float>(beta2),
          .eps = static_cast<float>(options.eps),
          .decay = static_cast<float>(lr * weight_decay),
          .step_size = static_cast<float>(lr / (1.0 - std::pow(beta1, static_cast<double>(t)))),
          .root_correction = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(beta2, static_cast<double>(t))))};
}

double squared_norm_cpu(const torch::Tensor& values) {
  const float* g = values.data_ptr<float>();
  const int64_t n = values.numel(), blocks = (n + kGrain - 1) / kGrain;
  std::vector<double> sums(static_cast<size_t>(blocks), 0.0);
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      double lanes[8] = {};  // independent sums, so that the loop becomes vector code
      const int64_t last = std::min(n, (block + 1) * kGrain);
      int64_t i = block * kGrain;
      for (; i + 8 <= last; i += 8) {
        for (int64_t lane = 0; lane < 8; ++lane)
          lanes[lane] += static_cast<double>(g[i + lane]) * static_cast<double>(g[i + lane]);
      }
      for (; i < last; ++i) lanes[0] += static_cast<double>(g[i]) * static_cast<double>(g[i]);
      for (const double lane : lanes) sums[static_cast<size_t>(block)] += lane;
    }
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

/// Of all of them together. On other devices the norms of all are made at once, and one number is fetched: to fetch is
/// to wait for the device.
double squared_norm(const std::vector<torch::Tensor>& tensors) {
  double sum = 0;
  std::vector<torch::Tensor> elsewhere;
  for (const auto& x : tensors) {
    if (x.is_cpu())
      sum += squared_norm_cpu(x);
    else
      elsewhere.push_back(x);
  }
  if (elsewhere.empty()) return sum;
  return sum + torch::stack(at::_foreach_norm(elsewhere, 2, torch::kFloat64)).square().sum().item<double>();
}

/// What the learning rate of each row is multiplied with; undefined: 1.
torch::Tensor row_factor(const TrainedParameter& p, const OptimizerOptions& options) {
  if (p.kind != ParameterKind::gain || options.gain_floor.is_word()) return p.row_factor;
  return p.value.detach().abs().clamp_min(*options.gain_floor.value);
}

void copy_moment(const std::map<std::string, torch::Tensor>& state, const std::string& name, torch::Tensor& out) {
  const auto found = state.find(name);
  CRUMB_CHECK(found != state.end() && found->second.sizes() == out.sizes(),
              "the checkpoint's optimizer has no {} of this shape", name);
  out.copy_(found->second);
}

}  // namespace

Optimizer::Optimizer(std::vector<TrainedParameter> parameters, const OptimizerOptions& options,
                     torch::ScalarType compute)
    : parameters_(std::move(parameters)), options_(options), compute_(compute) {
  CRUMB_CHECK(options_.betas.size() == 2, "optimizer.betas: expected two numbers, got {}", options_.betas.size());
  for (const auto& p : parameters_) {
    CRUMB_ASSERT(p.value.is_contiguous() && p.value.scalar_type() == torch::kFloat32);
    m_.push_back(torch::zeros_like(p.value, torch::TensorOptions().requires_grad(false)));
    v_.push_back(is_for_muon(p) ? torch::Tensor()
                                : torch::zeros_like(p.value, torch::TensorOptions().requires_grad(false)));
    if (options_.ema > 0) averages_.push_back(p.value.detach().clone());
  }
}

double Optimizer::gradient_norm() const { return norm_of(/*scales=*/false); }
double Optimizer::scale_gradient_norm() const { return norm_of(/*scales=*/true); }

double Optimizer::norm_of(bool scales) const {
  std::vector<torch::Tensor> gradients;
  for (const auto& p : parameters_) {
    const bool is_asked = (p.kind == ParameterKind::scale) == scales;
    if (is_asked && p.value.grad().defined()) gradients.push_back(p.value.grad().contiguous());
  }
  return std::sqrt(squared_norm(gradients));
}

bool Optimizer::is_finite() const {
  std::vector<torch::Tensor> values;
  for (const auto& p : parameters_) values.push_back(p.value.detach());
  return std::isfinite(squared_norm(values));
}

void Optimizer::update_averages() {
  const auto t = static_cast<double>(num_steps_);
  const double decay = std::min(options_.ema, (1.0 + t) / (10.0 + t));
  for (size_t i = 0; i < averages_.size(); ++i) averages_[i].lerp_(parameters_[i].value, 1.0 - decay);
}

void Optimizer::swap_averages() {
  for (size_t i = 0; i < averages_.size(); ++i) {
    torch::Tensor value = parameters_[i].value;
    const torch::Tensor data = value.variable_data();
    value.set_data(averages_[i]);
    averages_[i] = data;
  }
  are_swapped_ = !are_swapped_;
}

void Optimizer::step(const LearningRates& rates, double gradient_factor) {
  const torch::NoGradGuard no_grad;
  CRUMB_ASSERT(!are_swapped_);
  ++num_steps_;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const TrainedParameter& p = parameters_[i];
    if (!p.value.grad().defined()) continue;
    if (is_for_muon(p)) {
      step_muon(i, rates.lr, gradient_factor);
      continue;
    }
    const bool is_scale = p.kind == ParameterKind::scale;
    const double lr = is_scale ? rates.scale_lr : rates.lr;
    const bool is_matrix = p.kind == ParameterKind::weight || p.kind == ParameterKind::table;
    const double weight_decay = is_matrix ? options_.weight_decay : 0.0;
    const torch::Tensor factor = row_factor(p, options_);
    kernels::adamw_(p.value, p.value.grad(), m_[i], v_[i], factor.defined() ? std::optional(factor) : std::nullopt,
                    step_constants(options_, lr, weight_decay, is_scale ? 1.0 : gradient_factor, num_steps_));
  }
  update_averages();
}

bool Optimizer::is_for_muon(const TrainedParameter& p) const {
  return options_.name == "muon" && p.kind == ParameterKind::weight && p.value.dim() == 2;
}

void Optimizer::step_muon(size_t i, double lr, double gradient_factor) {
  const TrainedParameter& p = parameters_[i];
  const double beta = options_.betas[0];
  const torch::Tensor gradient = p.value.grad() * gradient_factor;
  m_[i].mul_(beta).add_(gradient, 1 - beta);
  torch::Tensor step = orthogonalized(torch::add(m_[i] * beta, gradient, 1 - beta), compute_);
  if (p.row_factor.defined()) step.mul_(p.row_factor.unsqueeze(1));
  torch::Tensor value = p.value;
  value.mul_(1 - lr * options_.weight_decay).sub_(step, lr * muon_step_size(value.size(0), value.size(1)));
}

void Optimizer::zero_grad() {
  for (auto& p : parameters_) p.value.mutable_grad() = torch::Tensor();
}

std::map<std::string, torch::Tensor> Optimizer::state() const {
  std::map<std::string, torch::Tensor> out;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    out[parameters_[i].name + ".m"] = m_[i];
    if (v_[i].defined()) out[parameters_[i].name + ".v"] = v_[i];
    if (has_averages()) out[parameters_[i].name + ".ema"] = averages_[i];
  }
  return out;
}

void Optimizer::load_state(const std::map<std::string, torch::Tensor>& state, int64_t num_steps) {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    copy_moment(state, parameters_[i].name + ".m", m_[i]);
    if (v_[i].defined()) copy_moment(state, parameters_[i].name + ".v", v_[i]);
    if (has_averages()) copy_moment(state, parameters_[i].name + ".ema", averages_[i]);
  }
  num_steps_ = num_steps;
}

}  // namespace crumb::train
