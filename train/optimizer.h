// AdamW (Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101) over groups of parameters, float32 masters; where it is
// asked for, Muon (train/muon.h) for the matrices of linears.
//
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  w -= lr * wd * w + lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t))
//   + eps)
//
// equal to torch::optim::AdamW up to rounding; on the CPU one pass over memory a parameter. Muon, with Nesterov's
// momentum:
//
//   m = b1 m + (1 - b1) g,  w -= lr * wd * w + lr * row_factor * muon_step_size * orthogonalized((1 - b1) g + b1 m)
#pragma once

#include <torch/torch.h>

#include <map>
#include <string>
#include <vector>

#include "train/options.h"

namespace crumb::train {

/// What a parameter is decides its learning rate.
enum class ParameterKind {
  weight,  // matrix of a linear: lr, decayed; what Muon moves
  table,   // embedding, head: lr, decayed
  scale,   // logarithm of a scale: scale_lr; outside the gradient norm
  gain,    // of a norm: lr, or lr in proportion to it (OptimizerOptions::gain_floor); not decayed
  small    // bias: lr, not decayed
};

struct TrainedParameter {
  std::string name;  // unique
  torch::Tensor value;
  ParameterKind kind = ParameterKind::weight;
  /// [rows] or undefined (all 1): multiplies the learning rate of each row.
  torch::Tensor row_factor;
};

struct LearningRates {
  double lr = 0, scale_lr = 0;
};

class Optimizer {
 public:
  /// `compute`: type of Muon's products.
  Optimizer(std::vector<TrainedParameter> parameters, const OptimizerOptions& options,
            torch::ScalarType compute = torch::kFloat32);

  const std::vector<TrainedParameter>& parameters() const { return parameters_; }
  /// Norm of all gradients but those of scales.
  double gradient_norm() const;
  double scale_gradient_norm() const;
  /// No NaN and no infinity in any parameter.
  bool is_finite() const;
  /// One step with the gradients multiplied by `gradient_factor` (scales' are not). Parameters without a gradient stay.
  void step(const LearningRates& rates, double gradient_factor);
  void zero_grad();
  int64_t num_steps() const { return num_steps_; }

  /// With options.ema = d > 0: an average a of each parameter w, which begins as w is and after step t becomes
  /// d_t a + (1 - d_t) w with d_t = min(d, (1 + t) / (10 + t)), so that short runs forget their start, too. The swap
  /// puts the averages in the place of the parameters, and back the next time; no step in between.
  bool has_averages() const { return !averages_.empty(); }
  void swap_averages();

  /// Moments as "NAME.m" and, but for what Muon moves, "NAME.v"; averages as "NAME.ema".
  std::map<std::string, torch::Tensor> state() const;
  /// Copies moments and averages in; UserError for one that is missing or has another shape.
  void load_state(const std::map<std::string, torch::Tensor>& state, int64_t num_steps);

 private:
  /// Norm of the gradients of scales, or of all others.
  double norm_of(bool scales) const;
  bool is_for_muon(const TrainedParameter& p) const;
  void step_muon(size_t i, double lr, double gradient_factor);
  void update_averages();

  std::vector<TrainedParameter> parameters_;
  OptimizerOptions options_;
  torch::ScalarType compute_;
  std::vector<torch::Tensor> m_, v_, averages_;  // v undefined of what Muon moves
  int64_t num_steps_ = 0;
  bool are_swapped_ = false;
};

}  // namespace crumb::train
