#include "kernels/attention.h"

#include "core/common/executor.h"
#include "kernels/isa/table.h"

namespace crumb::kernels {

void attend(const AttentionArguments& a, Isa isa) {
  const int64_t rows = a.count * a.heads;
  const int64_t scratch = kMatmulScratch + rows * (kKeysPerBlock + 2 * a.dim + 2);  // see AttentionRows
  kernel_table(isa).attend(a, thread_scratch(scratch));
}

}  // namespace crumb::kernels
