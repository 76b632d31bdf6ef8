#include <cuda_runtime_api.h>

#include "core/common/error.h"
#include "kernels/cuda/stream.h"

namespace crumb::kernels {

void check_launch(const char* what) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return;
  run_error("the CUDA kernel {} was not launched: {}", what, cudaGetErrorString(error));
}

const char* code_architectures() { return CRUMB_CUDA_CODE; }

}  // namespace crumb::kernels
