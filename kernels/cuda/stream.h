// The kernels of kernels/*.h once more for CUDA devices: the same functions, told apart by their last parameter, a
// stream instead of an Executor. Pointers are the device's; a call returns before the device is done. A kernel that
// cannot be launched is a RunError.
#pragma once

struct CUstream_st;

namespace crumb::kernels {

using CudaStream = CUstream_st*;  // cudaStream_t, so that who calls needs no header of CUDA

/// RunError if the launch just made was refused. `what`: the kernel.
void check_launch(const char* what);

/// For people: the architectures this program has code for.
const char* code_architectures();

}  // namespace crumb::kernels
