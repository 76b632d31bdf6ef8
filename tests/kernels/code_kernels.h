// Kernels for codes and int8 activations that no instruction set of this machine has, compiled so that it runs them.
#pragma once

#include "kernels/code_matmul.h"

namespace crumb::testing {

/// Panels [begin, end), as KernelTable::code_matmul.
using CodeKernel = void (*)(const kernels::Int8Tokens& x, const kernels::CodeProduct& product, int64_t begin,
                            int64_t end);

/// That of avx_vnni in the instructions of avx512_vnni.
extern const CodeKernel kVnni256Kernel;
/// That of amx over tiles in plain loops; needs avx512_vnni.
extern const CodeKernel kEmulatedAmxKernel;

}  // namespace crumb::testing
