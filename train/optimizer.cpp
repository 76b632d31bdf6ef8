#include "train/optimizer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "core/common/error.h"
#include "train/adamw_update.h"

namespace crumb::train {
namespace {

constexpr int64_t kGrain =
    16384;  // weights a thread takes at least; also the blocks of the norm, whose sum must not depend on threads

AdamWStep step_constants(const OptimizerOptions& options, double lr, double weight_decay, double gradient_factor,
                         int64_t t) {
  const double beta1 = options.betas[0], beta2 = options.betas[1];
  return {.gradient_factor = static_cast<float>(gradient_factor),
          .beta1 = static_cast<float>(beta1),
          .beta2 = static_cast<float>(beta2),
          .eps = static_cast<float>(options.eps),
          .decay = static_cast<float>(1.0 - lr * weight_decay),
          .step_size = static_cast<float>(lr / (1.0 - std::pow(beta1, static_cast<double>(t)))),
          .root_correction = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(beta2, static_cast<double>(t))))};
}

/// Rows with factors of their own: each is a short array with its own step size.
void update_cpu(const AdamWStep& step, const TrainedParameter& p, const torch::Tensor& gradient, torch::Tensor& m,
                torch::Tensor& v, double lr_times_decay) {
  const float* g = gradient.data_ptr<float>();
  float *w = p.value.data_ptr<float>(), *m_data = m.data_ptr<float>(), *v_data = v.data_ptr<float>();
  if (!p.row_factor.defined()) {
    at::parallel_for(0, p.value.numel(), kGrain, [&](int64_t begin, int64_t end) {
      adamw_update(step, end - begin, g + begin, w + begin, m_data + begin, v_data + begin);
    });
    return;
  }
  const int64_t rows = p.value.size(0), cols = p.value.numel() / rows;
  const float* factor = p.row_factor.data_ptr<float>();
  at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      AdamWStep of_row = step;
      of_row.step_size *= factor[row];
      of_row.decay = static_cast<float>(1.0 - lr_times_decay * static_cast<double>(factor[row]));
      adamw_update(of_row, cols, g + row * cols, w + row * cols, m_data + row * cols, v_data + row * cols);
    }
  });
}

/// The same with Torch's operations, for other devices.
void update_composite(const AdamWStep& step, const TrainedParameter& p, const torch::Tensor& gradient, torch::Tensor& m,
                      torch::Tensor& v, double lr_times_decay) {
  const torch::Tensor g = gradient * step.gradient_factor;
  m.mul_(step.beta1).add_(g, 1.0F - step.beta1);
  v.mul_(step.beta2).addcmul_(g, g, 1.0F - step.beta2);
  torch::Tensor change = m / (v.sqrt() * step.root_correction + step.eps) * step.step_size + p.value * lr_times_decay;
  if (p.row_factor.defined()) change *= p.row_factor.view({-1, 1});
  p.value.sub_(change);
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

/// Of all of them together. On other devices the sum of each stays there until the last is known: to fetch a number is
/// to wait for the device.
double squared_norm(const std::vector<torch::Tensor>& tensors) {
  double sum = 0;
  std::vector<torch::Tensor> elsewhere;
  for (const auto& x : tensors) {
    if (x.is_cpu())
      sum += squared_norm_cpu(x);
    else
      elsewhere.push_back(at::linalg_vector_norm(x, 2, {}, /*keepdim=*/false, torch::kFloat64));
  }
  return elsewhere.empty() ? sum : sum + torch::stack(elsewhere).square().sum().item<double>();
}

void copy_moment(const std::map<std::string, torch::Tensor>& state, const std::string& name, torch::Tensor& out) {
  const auto found = state.find(name);
  CRUMB_CHECK(found != state.end() && found->second.sizes() == out.sizes(),
              "the checkpoint's optimizer has no {} of this shape", name);
  out.copy_(found->second);
}

}  // namespace

AdamW::AdamW(std::vector<TrainedParameter> parameters, const OptimizerOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  CRUMB_CHECK(options_.betas.size() == 2, "optimizer.betas: expected two numbers, got {}", options_.betas.size());
  for (const auto& p : parameters_) {
    CRUMB_ASSERT(p.value.is_contiguous() && p.value.scalar_type() == torch::kFloat32);
    m_.push_back(torch::zeros_like(p.value, torch::TensorOptions().requires_grad(false)));
    v_.push_back(torch::zeros_like(p.value, torch::TensorOptions().requires_grad(false)));
  }
}

double AdamW::gradient_norm() const { return norm_of(/*scales=*/false); }
double AdamW::scale_gradient_norm() const { return norm_of(/*scales=*/true); }

double AdamW::norm_of(bool scales) const {
  std::vector<torch::Tensor> gradients;
  for (const auto& p : parameters_) {
    const bool is_asked = (p.kind == ParameterKind::scale) == scales;
    if (is_asked && p.value.grad().defined()) gradients.push_back(p.value.grad().contiguous());
  }
  return std::sqrt(squared_norm(gradients));
}

bool AdamW::is_finite() const {
  std::vector<torch::Tensor> values;
  for (const auto& p : parameters_) values.push_back(p.value.detach());
  return std::isfinite(squared_norm(values));
}

void AdamW::step(const LearningRates& rates, double gradient_factor) {
  const torch::NoGradGuard no_grad;
  ++num_steps_;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const TrainedParameter& p = parameters_[i];
    if (!p.value.grad().defined()) continue;
    const bool is_scale = p.kind == ParameterKind::scale;
    const double lr = is_scale ? rates.scale_lr : rates.lr;
    const double weight_decay = p.kind == ParameterKind::weight ? options_.weight_decay : 0.0;
    const AdamWStep constants =
        step_constants(options_, lr, weight_decay, is_scale ? 1.0 : gradient_factor, num_steps_);
    (p.value.is_cpu() ? update_cpu : update_composite)(constants, p, p.value.grad().contiguous(), m_[i], v_[i],
                                                       lr * weight_decay);
  }
}

void AdamW::zero_grad() {
  for (auto& p : parameters_) p.value.mutable_grad() = torch::Tensor();
}

std::map<std::string, torch::Tensor> AdamW::state() const {
  std::map<std::string, torch::Tensor> out;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    out[parameters_[i].name + ".m"] = m_[i];
    out[parameters_[i].name + ".v"] = v_[i];
  }
  return out;
}

void AdamW::load_state(const std::map<std::string, torch::Tensor>& state, int64_t num_steps) {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    copy_moment(state, parameters_[i].name + ".m", m_[i]);
    copy_moment(state, parameters_[i].name + ".v", v_[i]);
  }
  num_steps_ = num_steps;
}

}  // namespace crumb::train
