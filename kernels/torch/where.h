// Where an operator's kernel runs. The kernels of a CPU and of CUDA devices have the same names and arguments but for
// the last, an Executor or a stream: an operator's function is a template of one of these types. Made of a tensor, it
// makes the tensor's device the current one for as long as it lives; get() is the argument.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "core/common/executor.h"

#ifdef CRUMB_CUDA_KERNELS
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/cuda/training.h"
#endif

namespace crumb::kernels {

/// Torch's threads as an Executor, so that one set of threads exists in a process that trains.
class TorchExecutor : public Executor {
 public:
  int num_threads() const override { return at::get_num_threads(); }
  void run(int64_t n, int64_t grain, const Body& body) override {
    at::parallel_for(0, n, grain, [&](int64_t begin, int64_t end) { body(begin, end, at::get_thread_num()); });
  }
};

inline Executor& torch_executor() {
  static TorchExecutor executor;
  return executor;
}

struct Cpu {
  explicit Cpu(const at::Tensor& /*of_device*/) {}
  static Executor& get() { return torch_executor(); }
};

#ifdef CRUMB_CUDA_KERNELS
class Cuda {
 public:
  explicit Cuda(const at::Tensor& of_device) : guard_(of_device.device()) {}
  CudaStream get() const { return c10::cuda::getCurrentCUDAStream().stream(); }

 private:
  c10::cuda::CUDAGuard guard_;
};
#endif

}  // namespace crumb::kernels
