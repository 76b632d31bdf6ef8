#define CRUMB_LANES 16
#include "kernels/isa/amx_tiles.h"
#include "kernels/isa/code_matmul_amx.h"
#include "kernels/isa/matmul_bf16.h"
#include "kernels/isa/seq_x86.h"
#include "kernels/isa/vector_table.h"

namespace crumb::kernels {

const KernelTable kAmxTable =
    with_bf16_products(vector_table(seq_forward_group, seq_backward_group, multiply_codes_by_tiles<AmxTiles>));

}  // namespace crumb::kernels
