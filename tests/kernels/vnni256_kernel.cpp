#define CRUMB_LANES 8
#include "kernels/isa/code_matmul_vnni.h"
#include "tests/kernels/code_kernels.h"

namespace crumb::testing {

const CodeKernel kVnni256Kernel = kernels::multiply_codes_int8;

}  // namespace crumb::testing
