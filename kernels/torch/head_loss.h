// Losses of the logits hidden * head^T, made for a few positions at a time: the logits of all never exist. The gradient
// is computed with the loss, while a chunk's logits are at hand: two matrix products a chunk for the logits of student
// and teacher, one for the gradient of the hidden states, one for that of the head if it is trained.
//
//   torch.ops.crumb.head_loss(Tensor hidden, Tensor head, Tensor? teacher_hidden, Tensor? teacher_head, Tensor targets,
//     Tensor row_weights, float[] weights, float temperature=1.0, float jsd_beta=0.5, int chunk_tokens=0,
//     ScalarType compute=float32) -> (Tensor total, Tensor terms)
//   torch.ops.crumb.head_scores(Tensor hidden, Tensor head, Tensor? teacher_hidden, Tensor? teacher_head,
//     Tensor targets, int chunk_tokens=0) -> Tensor
//
// Where a device can get its own kernels, from the smallest: logit_loss_ (the rows of a chunk), head_loss_gradients
// (everything in one pass).
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/torch/logit_loss.h"

namespace crumb::kernels {

/// n positions. `compute` is the type of the matrix products; losses and sums are float32 and float64.
struct HeadLossArguments {
  at::Tensor hidden;                         // [n, width] float32 (float64 in tests)
  at::Tensor head;                           // [vocab, width]
  std::optional<at::Tensor> teacher_hidden;  // [n, teacher width]; both, or neither if no divergence has a weight
  std::optional<at::Tensor> teacher_head;    // [vocab, teacher width]
  at::Tensor targets;                        // [n] int64
  at::Tensor row_weights;                    // [n], of hidden's type
  LogitLossSpec spec;
  int64_t chunk_tokens = 0;  // for logit_chunk; 0: as many as fit 4 M logits, 64 M on a GPU, at least 256
  at::ScalarType compute = at::kFloat;
};

/// Positions whose logits exist at once, by the number asked for.
int64_t logit_chunk(int64_t asked, int64_t vocab, bool on_cpu);

/// total: sum of row_weights * loss, of hidden's type, differentiable by hidden and head. terms [kNumLossTerms]
/// float64: the same sum of each term without its weight.
std::tuple<at::Tensor, at::Tensor> head_loss(const HeadLossArguments& arguments);

/// Sums of logit_scores over all positions, products in the type of hidden.
at::Tensor head_scores(const at::Tensor& hidden, const at::Tensor& head,
                       const std::optional<at::Tensor>& teacher_hidden, const std::optional<at::Tensor>& teacher_head,
                       const at::Tensor& targets, int64_t chunk_tokens = 0);

}  // namespace crumb::kernels
