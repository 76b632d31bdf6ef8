#define CRUMB_LANES 16
#include "kernels/isa/code_matmul_vnni.h"
#include "kernels/isa/matmul_bf16.h"
#include "kernels/isa/seq_x86.h"
#include "kernels/isa/vector_table.h"

namespace crumb::kernels {

const KernelTable kAvx512Bf16Table =
    with_bf16_products(vector_table(seq_forward_group, seq_backward_group, multiply_codes_int8));

}  // namespace crumb::kernels
