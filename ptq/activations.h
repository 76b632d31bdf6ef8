// Memory for activations of all calibration tokens, in files where there is not enough.
#pragma once

#include <torch/torch.h>

#include <memory>

#include "core/common/file.h"

namespace crumb::ptq {

class ActivationMemory {
 public:
  /// Tensors beyond `bytes` at one time lie in unnamed files of `folder`.
  ActivationMemory(const Path& folder, double bytes) : folder_(folder), left_(std::make_shared<double>(bytes)) {}

  /// Float32, not initialised; its place is free again when the last handle to it goes. RunError when
  /// there is no memory, or the disk of the folder is full.
  torch::Tensor make(at::IntArrayRef shape);

 private:
  torch::Tensor in_file(at::IntArrayRef shape, int64_t bytes);

  Path folder_;
  std::shared_ptr<double> left_;
};

}  // namespace crumb::ptq
