#include "kernels/attention.h"

#include "core/common/executor.h"
#include "kernels/isa/table.h"

namespace crumb::kernels {

namespace {

template <class T>
float* scratch_for(const AttentionArguments<T>& a) {
  return thread_scratch(kMatmulScratch + a.count * a.heads * (kKeysPerBlock + 2 * a.dim + 2));  // see AttentionRows
}

}  // namespace

void attend(const AttentionArguments<float>& a, Isa isa) { kernel_table(isa).attend(a, scratch_for(a)); }
void attend(const AttentionArguments<Half>& a, Isa isa) { kernel_table(isa).attend_half(a, scratch_for(a)); }
void attend(const AttentionArguments<int8_t>& a, Isa isa) { kernel_table(isa).attend_int8(a, scratch_for(a)); }

}  // namespace crumb::kernels
