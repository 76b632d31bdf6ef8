// The losses of a decoder's final hidden states: kernels/torch/head_loss.h for the positions that are supervised.
#pragma once

#include <torch/torch.h>

#include "kernels/divergence.h"

namespace crumb::model {

/// n positions. With `mask`, positions where it is 0 are left out before anything is computed.
struct HeadLossInput {
  torch::Tensor hidden;                         // [n, width] float32 (float64 in tests); receives a gradient
  torch::Tensor head;                           // [vocab, width]; receives a gradient if it requires one
  torch::Tensor teacher_hidden;                 // [n, teacher width] or undefined
  torch::Tensor teacher_head;                   // [vocab, teacher width] or undefined
  torch::Tensor targets;                        // [n] int64
  torch::Tensor mask;                           // [n] float32, weight of each position; undefined: all 1
  torch::ScalarType compute = torch::kFloat32;  // dtype of the matrix products; losses and sums are float32 and double
};

struct HeadLoss {
  torch::Tensor total;       // scalar, with gradient
  kernels::LossTerms terms;  // without their weights, divided like total
};

/// total = sum over positions of mask * loss by `spec` / total_supervised. chunk_tokens: positions whose logits exist
/// at once; 0: as many as fit 4 M logits, at least 256.
HeadLoss head_loss(const HeadLossInput& input, const kernels::LogitLossSpec& spec, double total_supervised,
                   int64_t chunk_tokens = 0);

/// Sums over positions with mask > 0, without gradient, at temperature 1, matrix products in float32.
struct HeadScores {
  double tokens = 0, cross_entropy = 0, kl = 0;
  double same_top = 0;  // student's and teacher's largest logit agree
  double top_is_target = 0;
};
HeadScores head_scores(const HeadLossInput& input, int64_t chunk_tokens = 0);

}  // namespace crumb::model
