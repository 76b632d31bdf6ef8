#define CRUMB_LANES 8
#include "kernels/isa/code_matmul_vnni.h"
#include "kernels/isa/seq_x86.h"
#include "kernels/isa/vector_table.h"

namespace crumb::kernels {

const KernelTable kAvxVnniTable = vector_table(seq_forward_group, seq_backward_group, multiply_codes_int8);

}  // namespace crumb::kernels
