// Which instruction sets this machine has, asked once; CRUMB_ISA=NAME (environment) lowers the choice, for tests.
#pragma once

#include <span>
#include <string_view>

namespace crumb::kernels {

/// In ascending order of preference. `reference`: plain loops, in double precision where rounding matters.
enum class Isa { reference, neon, neon_dotprod, neon_i8mm, avx2, avx_vnni, avx512, avx512_vnni, avx512_bf16, amx };

/// Those that this build holds and this machine can run, in ascending order of preference.
std::span<const Isa> available_isas();
/// The last of these, or what CRUMB_ISA says. UserError: CRUMB_ISA is unknown or not available.
Isa best_isa();
std::string_view isa_name(Isa isa);

/// avx512_bf16 or amx_bf16: whether bf16 matrix products are fast here (Torch's CPU kernels emulate them 200 times
/// slower without).
bool has_fast_bf16();

}  // namespace crumb::kernels
