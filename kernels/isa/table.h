// The arithmetic that each instruction set implements: serial pieces of the kernels, as one table of functions a set.
// The files beside kernels/isa/ cut the work for threads and call these; what the functions compute is said there.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/bf16.h"
#include "kernels/code_matmul.h"
#include "kernels/cpu_features.h"
#include "kernels/divergence.h"
#include "kernels/matmul.h"
#include "kernels/rounding.h"
#include "kernels/seq_group.h"

namespace crumb::kernels {

inline constexpr int64_t kPanelRows = 32;     // rows of W that a thread takes at least; a multiple of every tile's
inline constexpr int64_t kKeysPerBlock = 64;  // keys of one step of attention, at positions that are multiples of it
inline constexpr int64_t kMatmulScratch = 32 * 256;  // floats of scratch that `matmul` needs

template <class In, class Out>
struct RmsNormFunctions {
  void (*forward)(const In* x, const float* weight, float eps, int64_t rows, int64_t cols, Out* y);
  /// grad_weight (may be null) [cols] is added to.
  void (*backward)(const In* x, const float* weight, const Out* grad_y, float eps, int64_t rows, int64_t cols,
                   In* grad_x, float* grad_weight);
};

template <class T>
struct ElementwiseFunctions {
  /// One head: x, y [2 * half] by cos, sin [half]; y may be x.
  void (*rope)(const T* x, const float* cos, const float* sin, int64_t half, bool inverse, T* y);
  void (*swiglu)(const T* gate, const T* up, int64_t n, T* y);
  void (*swiglu_backward)(const T* gate, const T* up, const T* grad_y, int64_t n, T* grad_gate, T* grad_up);
};

struct KernelTable {
  RmsNormFunctions<float, float> rms_norm;
  RmsNormFunctions<float, Bf16> rms_norm_to_bf16;
  RmsNormFunctions<Bf16, Bf16> rms_norm_bf16;
  ElementwiseFunctions<float> elementwise;
  ElementwiseFunctions<Bf16> elementwise_bf16;
  template <class T>
  const ElementwiseFunctions<T>& of() const {
    if constexpr (sizeof(T) == sizeof(Bf16))
      return elementwise_bf16;
    else
      return elementwise;
  }
  /// One row each; logit_loss: teacher is null when !needs_teacher, *terms are 0, row_weight is not.
  void (*logit_loss)(float* student, float* teacher, int64_t target, float row_weight, int64_t vocab,
                     const LogitLossSpec& spec, LossTerms* terms);
  void (*logit_score)(const float* student, const float* teacher, int64_t target, int64_t vocab, LogitScoreRow* score);
  void (*seq_forward)(const SeqGroup& group, float* y, uint8_t* codes);
  float (*seq_backward)(const SeqGroup& group, const float* grad_y, OutsideGradient outside, float* grad_w);
  /// Rows [begin, end) of W; begin is a multiple of kPanelRows.
  void (*matmul)(const MatmulArguments& arguments, int64_t begin, int64_t end, float* scratch);
  /// The same by products of bfloat16, of x instead of arguments.x; null where there is no instruction for them.
  void (*matmul_bf16)(const Bf16Tokens& x, const MatmulArguments& arguments, int64_t begin, int64_t end);
  /// packed: packed_size(rows, cols) floats.
  void (*pack_weights)(const float* w, int64_t rows, int64_t cols, float* packed);
  void (*pack_weights_bf16)(const float* w, int64_t rows, int64_t cols, Bf16* packed);
  void (*pack_weights_f16)(const float* w, int64_t rows, int64_t cols, Half* packed);
  int64_t packed_rows;  // that are interleaved: weight (r, k) of the first is at k * packed_rows + r
  /// Panels [begin, end) of the matrix.
  void (*code_matmul)(const Int8Tokens& x, const CodeProduct& product, int64_t begin, int64_t end);
  /// Likewise; begin is a multiple of kPanelRows / kCodePanelRows, scratch as for `matmul`.
  void (*code_matmul_float)(const float* x, int64_t tokens, const CodeProduct& product, int64_t begin, int64_t end,
                            float* scratch);
  /// Likewise, of bfloat16; null where matmul_bf16 is.
  void (*code_matmul_bf16)(const Bf16Tokens& x, const CodeProduct& product, int64_t begin, int64_t end, float* scratch);
  float (*round_to_int8)(const float* x, int64_t n, int8_t* codes);
  void (*round_to_bf16)(const float* x, int64_t n, Bf16* y);
  /// scratch: what kernels/attention.cpp gives.
  void (*attend)(const AttentionArguments<float>& arguments, float* scratch);
  void (*attend_half)(const AttentionArguments<Half>& arguments, float* scratch);
  void (*attend_int8)(const AttentionArguments<int8_t>& arguments, float* scratch);
  /// y = e^x and ln x, x in double only where that is the name: what the functions above use, for tests.
  void (*exp)(const float* x, int64_t n, float* y);
  void (*exp_double)(const double* x, int64_t n, double* y);
  void (*log)(const float* x, int64_t n, float* y);
};

/// `isa` must be one of available_isas().
const KernelTable& kernel_table(Isa isa);
/// Of best_isa().
const KernelTable& kernel_table();

// One a file; only those that this build holds are defined.
extern const KernelTable kReferenceTable, kNeonTable, kNeonDotprodTable, kNeonI8mmTable, kAvx2Table, kAvxVnniTable,
    kAvx512Table, kAvx512VnniTable, kAvx512Bf16Table, kAmxTable;

}  // namespace crumb::kernels
