// Training of one block's quantized linears towards the output of the float block: what block-wise reconstruction
// (EfficientQAT's Block-AP, arXiv:2407.11062) and AutoRound (arXiv:2309.05516) share.
#pragma once

#include <torch/torch.h>

#include "ptq/block_walk.h"
#include "quant/linear_formats.h"

namespace crumb::ptq {

struct BlockTraining {
  enum class Step { adam, sign };

  Step step = Step::adam;
  double lr = 0, scale_lr = 0;    // of weights, in scales; of ln scale. They fall to zero linearly
  int64_t steps = 0, passes = 0;  // one of the two: steps, or how often all windows are seen
  int64_t windows = 1;            // of each step
  double reach = 0;               // how far a weight may go from its first value, in first scales; 0: no limit
  bool normalise_tokens = true;   // each token's error relative to its output, else all together
  uint64_t seed = 0;              // of the order of windows
};

struct TrainedBlock {
  double loss_before = 0, loss_after = 0;  // mean over all windows: squared error relative to the output
  bool is_kept = false;                    // false: training made it worse, and the block is as before
};

/// work.results holds codes, scales and masters of all quantized linears; they are trained, and replaced when the block
/// is better for it. input [windows, tokens, hidden]: what the block reads; target: the output it should have.
/// work.residual holds the output of the quantized block, before and after.
TrainedBlock train_block(BlockWork& work, const torch::Tensor& input, const torch::Tensor& target,
                         const BlockTraining& training);

/// UserError naming the key of a grid whose levels are not equally far apart: steps of training are measured in scales.
void check_trainable(const quant::LinearFormats& linears);

/// Quantizes each block by `first`, then trains it towards the output of the float block on the same input.
std::shared_ptr<BlockMethod> make_trained(std::shared_ptr<BlockMethod> first, const BlockTraining& training);

}  // namespace crumb::ptq
