#define CRUMB_LANES 8  // two registers of four
#include "kernels/code_matmul_portable.h"
#include "kernels/isa/vector_table.h"

namespace crumb::kernels {

const KernelTable kNeonTable = vector_table(portable::seq_forward, portable::seq_backward, portable::code_matmul);

}  // namespace crumb::kernels
