// Torch's threads as an Executor, so that one set of threads exists in a process that trains.
#pragma once

#include <ATen/Parallel.h>

#include "core/common/executor.h"

namespace crumb::kernels {

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

}  // namespace crumb::kernels
