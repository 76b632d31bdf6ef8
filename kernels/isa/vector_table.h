// The table of an instruction set whose kernels are those of this folder's headers; included by its file.
#pragma once

#include "kernels/isa/attention.h"
#include "kernels/isa/code_matmul_float.h"
#include "kernels/isa/divergence.h"
#include "kernels/isa/elementwise.h"
#include "kernels/isa/matmul.h"
#include "kernels/isa/rounding.h"
#include "kernels/isa/table.h"

namespace crumb::kernels {
namespace {

inline void exp_values(const float* x, int64_t n, float* y) {
  for_each_vector(n, [&](int64_t i, int64_t count) { store(y + i, exp(load(x + i, count, 0)), count); });
}

inline void log_values(const float* x, int64_t n, float* y) {
  for_each_vector(n, [&](int64_t i, int64_t count) { store(y + i, log(load(x + i, count, 1)), count); });
}

inline void exp_double_values(const double* x, int64_t n, double* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = exp_double(VecDouble{} + x[i])[0];
}

constexpr KernelTable vector_table(void (*seq_forward)(const SeqGroup&, float*, uint8_t*),
                                   float (*seq_backward)(const SeqGroup&, const float*, OutsideGradient, float*),
                                   void (*code_matmul)(const Int8Tokens&, const CodeProduct&, int64_t, int64_t)) {
  return {.rms_norm = {rms_norm_rows<float, float>, rms_norm_backward_rows<float, float>},
          .rms_norm_to_bf16 = {rms_norm_rows<float, Bf16>, rms_norm_backward_rows<float, Bf16>},
          .rms_norm_bf16 = {rms_norm_rows<Bf16, Bf16>, rms_norm_backward_rows<Bf16, Bf16>},
          .elementwise = {rope_head<float>, swiglu_values<float>, swiglu_backward_values<float>},
          .elementwise_bf16 = {rope_head<Bf16>, swiglu_values<Bf16>, swiglu_backward_values<Bf16>},
          .logit_loss = logit_loss_row,
          .logit_score = logit_score_row,
          .seq_forward = seq_forward,
          .seq_backward = seq_backward,
          .matmul = matmul_rows,
          .matmul_bf16 = nullptr,
          .pack_weights = pack_weight_rows,
          .pack_weights_bf16 = pack_narrow_weight_rows<Bf16>,
          .pack_weights_f16 = pack_narrow_weight_rows<Half>,
          .packed_rows = kTileCols,
          .code_matmul = code_matmul,
          .code_matmul_float = multiply_codes,
          .code_matmul_bf16 = nullptr,
          .round_to_int8 = round_values_to_int8,
          .round_to_bf16 = round_values_to_bf16,
          .attend = attend_queries<float>,
          .attend_half = attend_queries<Half>,
          .attend_int8 = attend_queries<int8_t>,
          .exp = exp_values,
          .exp_double = exp_double_values,
          .log = log_values};
}

}  // namespace
}  // namespace crumb::kernels
