#include "kernels/cpu_features.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/common/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace crumb::kernels {
namespace {

constexpr Isa kKnown[] = {Isa::reference,   Isa::avx2, Isa::avx_vnni, Isa::avx512,       Isa::avx512_vnni,
                          Isa::avx512_bf16, Isa::amx,  Isa::neon,     Isa::neon_dotprod, Isa::neon_i8mm};

#if defined(__x86_64__)
/// By the number: not every compiler knows the name avxvnni. Intel's Architectures Software Developer's Manual, volume
/// 2, CPUID: leaf 7, subleaf 1, EAX bit 4.
bool has_avx_vnni() {
  constexpr unsigned kAvxVnni = 1u << 4;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & kAvxVnni) != 0;
}

/// By the numbers: not every compiler knows the names. The same manual: leaf 7, EDX; volume 1, 13.3: bits 17 and 18 of
/// XCR0 say that the system saves the tiles.
constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24, kAmxInt8 = 1u << 25;
bool has_amx(unsigned wanted) {
  constexpr unsigned kOsxsave = 1u << 27;
  constexpr unsigned long long kTiles = 3ull << 17;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsxsave) == 0) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & wanted) != wanted) return false;
  return (_xgetbv(0) & kTiles) == kTiles;
}

/// Linux gives tiles to a process that asks (Documentation/arch/x86/xstate.rst), for all of its threads.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

/// avx512f, bw, cd, dq and vl: what -march=x86-64-v4 lets the compiler use.
[[maybe_unused]] bool has_avx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

std::vector<Isa> find_isas() {
  std::vector<Isa> found{Isa::reference};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(Isa::avx2);
  if (found.back() == Isa::avx2 && has_avx_vnni()) found.push_back(Isa::avx_vnni);
  if (has_avx512()) found.push_back(Isa::avx512);
  if (has_avx512() && __builtin_cpu_supports("avx512vnni")) found.push_back(Isa::avx512_vnni);
  if (found.back() == Isa::avx512_vnni && __builtin_cpu_supports("avx512bf16")) found.push_back(Isa::avx512_bf16);
  if (found.back() == Isa::avx512_bf16 && has_amx(kAmxTile | kAmxInt8) && may_use_tiles()) found.push_back(Isa::amx);
#elif defined(__aarch64__)
  found.push_back(Isa::neon);
#if defined(__linux__)
  constexpr unsigned long kHwcap2I8mm = 1ul << 13;
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) found.push_back(Isa::neon_dotprod);
  if (found.back() == Isa::neon_dotprod && (getauxval(AT_HWCAP2) & kHwcap2I8mm) != 0) found.push_back(Isa::neon_i8mm);
#endif
#endif
  return found;
}

std::string names_of(std::span<const Isa> isas) {
  std::vector<std::string_view> names;
  for (const Isa isa : isas) names.push_back(isa_name(isa));
  return fmt::format("{}", fmt::join(names, ", "));
}

Isa chosen_isa() {
  const auto available = available_isas();
  const char* wanted = std::getenv("CRUMB_ISA");
  if (wanted == nullptr || std::string_view(wanted).empty()) return available.back();
  const auto is_wanted = [&](Isa isa) { return isa_name(isa) == wanted; };
  CRUMB_CHECK(std::any_of(std::begin(kKnown), std::end(kKnown), is_wanted), "CRUMB_ISA={}: known: {}", wanted,
              names_of(kKnown));
  const auto found = std::find_if(available.begin(), available.end(), is_wanted);
  CRUMB_CHECK(found != available.end(), "CRUMB_ISA={}: this machine has {}", wanted, names_of(available));
  return *found;
}

}  // namespace

std::span<const Isa> available_isas() {
  static const std::vector<Isa> isas = find_isas();
  return isas;
}

Isa best_isa() {
  static const Isa isa = chosen_isa();
  return isa;
}

std::string_view isa_name(Isa isa) {
  constexpr std::string_view kNames[] = {"reference", "neon",   "neon_dotprod", "neon_i8mm",   "avx2",
                                         "avx_vnni",  "avx512", "avx512_vnni",  "avx512_bf16", "amx"};
  return kNames[static_cast<size_t>(isa)];
}

bool has_fast_bf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") || has_amx(kAmxBf16);
#elif defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kHwcap2Bf16 = 1ul << 14;
  return (getauxval(AT_HWCAP2) & kHwcap2Bf16) != 0;
#else
  return false;
#endif
}

}  // namespace crumb::kernels
