// Which instruction sets this machine has, asked once; CRUMB_ISA=reference|avx2 (environment) lowers the choice, for
// tests.
#pragma once

#include <string_view>

namespace crumb::kernels {

enum class Isa { reference, avx2 };
Isa best_isa();
std::string_view isa_name(Isa isa);
/// avx512_bf16 or amx_bf16: whether bf16 matrix products are fast here (Torch's CPU kernels emulate them 200 times
/// slower without).
bool has_fast_bf16();

}  // namespace crumb::kernels
