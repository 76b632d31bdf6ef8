// Memory for activations of all calibration tokens, in files where there is not enough.
#pragma once

#include <torch/torch.h>

#include "core/common/file.h"

namespace crumb::ptq {

class ActivationMemory {
 public:
  /// Beyond `bytes` in all, tensors lie in unnamed files of `folder`.
  ActivationMemory(const Path& folder, double bytes) : folder_(folder), left_(bytes) {}

  /// Float32, not initialised. RunError naming the folder when its disk is full.
  torch::Tensor make(at::IntArrayRef shape);
  int64_t spilled_bytes() const { return spilled_; }

 private:
  torch::Tensor in_file(at::IntArrayRef shape, int64_t bytes);

  Path folder_;
  double left_;
  int64_t spilled_ = 0;
};

}  // namespace crumb::ptq
