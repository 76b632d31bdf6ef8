#include "kernels/cpu_features.h"

#include <cstdlib>
#include <string>

#include "core/common/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace crumb::kernels {
namespace {

Isa widest_isa() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::reference;
}

#if defined(__x86_64__)
/// By the numbers: not every compiler knows the name amx-bf16. Intel's Architectures Software Developer's Manual,
/// volume 2, CPUID: leaf 7, EDX bit 22; volume 1, 13.3: bits 17 and 18 of XCR0 say that the system saves the tiles.
bool has_amx_bf16() {
  constexpr unsigned kOsxsave = 1u << 27, kAmxBf16 = 1u << 22;
  constexpr unsigned long long kTiles = 3ull << 17;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsxsave) == 0) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxBf16) == 0) return false;
  return (_xgetbv(0) & kTiles) == kTiles;
}
#endif

Isa chosen_isa() {
  const Isa widest = widest_isa();
  const char* wanted = std::getenv("CRUMB_ISA");
  if (wanted == nullptr || std::string_view(wanted).empty()) return widest;
  if (wanted == isa_name(Isa::reference)) return Isa::reference;
  CRUMB_CHECK(wanted == isa_name(Isa::avx2), "CRUMB_ISA={}: known: reference, avx2", wanted);
  CRUMB_CHECK(widest == Isa::avx2, "CRUMB_ISA=avx2: this machine has no AVX2");
  return Isa::avx2;
}

}  // namespace

Isa best_isa() {
  static const Isa isa = chosen_isa();
  return isa;
}

std::string_view isa_name(Isa isa) { return isa == Isa::avx2 ? "avx2" : "reference"; }

bool has_fast_bf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") || has_amx_bf16();
#elif defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kHwcap2Bf16 = 1ul << 14;
  return (getauxval(AT_HWCAP2) & kHwcap2Bf16) != 0;
#else
  return false;
#endif
}

}  // namespace crumb::kernels
