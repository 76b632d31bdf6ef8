#include "kernels/isa/table.h"

#include <algorithm>

#include "core/common/error.h"

namespace crumb::kernels {
namespace {

const KernelTable& table_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::amx) return kAmxTable;
  if (isa == Isa::avx512_bf16) return kAvx512Bf16Table;
  if (isa == Isa::avx512_vnni) return kAvx512VnniTable;
  if (isa == Isa::avx512) return kAvx512Table;
  if (isa == Isa::avx_vnni) return kAvxVnniTable;
  if (isa == Isa::avx2) return kAvx2Table;
#elif defined(__aarch64__)
  if (isa == Isa::neon_i8mm) return kNeonI8mmTable;
  if (isa == Isa::neon_dotprod) return kNeonDotprodTable;
  if (isa == Isa::neon) return kNeonTable;
#endif
  return kReferenceTable;
}

}  // namespace

const KernelTable& kernel_table(Isa isa) {
  const auto available = available_isas();
  CRUMB_ASSERT(std::find(available.begin(), available.end(), isa) != available.end());
  return table_of(isa);
}

const KernelTable& kernel_table() {
  static const KernelTable& table = table_of(best_isa());
  return table;
}

}  // namespace crumb::kernels
