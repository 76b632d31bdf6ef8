// Where an operator's kernel runs. The kernels of a CPU and of CUDA devices have the same names and arguments but for
// the last, which is an Executor or a stream: an operator's function is a template of one of these types, whose get()
// is that argument.
#pragma once

#include <ATen/Parallel.h>

#include "core/common/executor.h"

#ifdef CRUMB_CUDA_KERNELS
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
  static Executor& get() { return torch_executor(); }
};

#ifdef CRUMB_CUDA_KERNELS
struct Cuda {
  static CudaStream get() { return c10::cuda::getCurrentCUDAStream().stream(); }
};
#endif

}  // namespace crumb::kernels
