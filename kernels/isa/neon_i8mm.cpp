#define CRUMB_LANES 8  // two registers of four
#include "kernels/isa/code_matmul_neon.h"
#include "kernels/isa/vector_table.h"

namespace crumb::kernels {

const KernelTable kNeonI8mmTable = vector_table(portable::seq_forward, portable::seq_backward, multiply_codes_int8);

}  // namespace crumb::kernels
