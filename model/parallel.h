// Torch's threads as the ParallelFor that kernels take, so that one pool exists in a process that trains.
#pragma once

#include <ATen/Parallel.h>

#include <functional>

namespace crumb::model {

inline void torch_parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  at::parallel_for(0, n, grain, body);
}

}  // namespace crumb::model
