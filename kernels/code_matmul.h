// The product of some tokens' activations with a matrix of integer codes and scales, read as the packed codes: with
// activations in int8, summed in int32, or with floats.
#pragma once

#include <cstdint>
#include <span>

#include "core/common/executor.h"
#include "kernels/cpu_features.h"

namespace crumb::kernels {

inline constexpr int64_t kCodePanelRows = 16;     // rows whose codes are interleaved
inline constexpr int64_t kCodeColsMultiple = 16;  // columns of a panel are padded to a multiple; of groups they are one
inline constexpr int64_t kCodeBlockBytes = 64;
/// In a group: int32 holds sums of so many (codes up to 255 less a zero up to 255) * activations down to -128.
inline constexpr int64_t kMostCodeCols = 65536;

/// A weight is (step * code - zero) * scale + minimum: grids with equal steps between their levels, SEQ (2c - 3, half
/// its scale), ternary (c - 1), integers; block types of GGUF. Where steps are not equal, a code of 4 bits is the
/// number of a level, which stands for it in all of the formulas here. Rows lie in panels of 16, the last filled up
/// with rows of scale 0. The codes of a panel are blocks of 64 bytes, 4 bytes a row, which hold 32 / bits columns: byte
/// j of a row has in its bits [bits * f, bits * (f + 1)) the code of the block's column 4 f + j. So a shift and an AND
/// give the codes of four neighbouring columns for every row, which is what instructions for bytes multiply with four
/// activations.
struct CodeMatrix {
  int bits = 2;  // 2, 4 or 8
  int64_t rows = 0, cols = 0;
  int64_t group_cols = 0;           // that share a scale: a multiple of kCodeColsMultiple that divides cols, or cols
  int32_t step = 1;                 // 1, or 2 where bits < 8
  int32_t zero = 0;                 // of all weights where `zeros` is null
  const uint8_t* codes = nullptr;   // code_panel_bytes() a panel
  const float* scales = nullptr;    // [panels, groups, 16]
  const int32_t* zeros = nullptr;   // likewise; each at most step * (2^bits - 1) and not negative
  const float* minima = nullptr;    // likewise; null: nothing is added
  const uint8_t* levels = nullptr;  // [16], of codes of 4 bits with step 1 and no zeros; null: codes are levels

  int64_t panels() const { return (rows + kCodePanelRows - 1) / kCodePanelRows; }
  int64_t groups() const { return cols / group_cols; }
};

/// Of `cols` columns of codes.
int64_t code_panel_bytes(int64_t cols, int bits);
/// One panel of codes [rows, cols], a byte each, rows <= 16.
void pack_code_panel(const uint8_t* codes, int64_t rows, int64_t cols, int bits, uint8_t* panel);

/// Activations are codes * scale.
struct Int8Tokens {
  const int8_t* codes = nullptr;  // [tokens, cols], rows `stride` bytes apart; from cols to stride there are zeros
  int64_t tokens = 0, cols = 0, stride = 0;
  const float* scales = nullptr;  // [tokens, cols / scale_cols]
  int64_t scale_cols = 0;         // that share a scale: likewise a multiple of kCodeColsMultiple or cols
  int64_t segment_cols = 0;  // the smaller of scale_cols and the matrix's group_cols, of which one divides the other
  const int32_t* sums = nullptr;  // [tokens, cols / segment_cols]: of the codes of each segment
};
/// A stride for rows of so many columns with which neighbouring tokens do not meet in the cache.
int64_t int8_stride(int64_t cols);

/// One matrix and where its results go.
struct CodeProduct {
  CodeMatrix matrix;
  const float* bias = nullptr;  // [rows] or null
  float* y = nullptr;           // [tokens, rows]
};

/// y[t, r] = bias[r] + sum over segments s, in order and each by one fused multiply-add, of
///   float(step * sum_k code[r, k] x[t, k] - zero * sum_k x[t, k]) * (scale of r in s * scale of t in s)
/// and, where the matrix has minima, by one more of
///   float(sum_k x[t, k]) * (minimum of r in s * scale of t in s)
/// with integer sums over the columns k of s, which are exact: all instruction sets and numbers of threads give the
/// same bits, and a token's row does not depend on the others.
void code_matmul(const Int8Tokens& x, std::span<const CodeProduct> products, Executor& executor, Isa isa = best_isa());

/// With float activations x [tokens, cols]: the values of matmul() (kernels/matmul.h) with the weights as
/// floats, bit for bit. A minimum is added by a fused multiply-add, which is the sum that block types are decoded to,
/// because their products are exact.
void code_matmul(const float* x, int64_t tokens, std::span<const CodeProduct> products, Executor& executor,
                 Isa isa = best_isa());

/// With x rounded to bfloat16 (kernels/rounding.h). Where a processor has products of bfloat16 (avx512_bf16):
///   y[t, r] = bias[r] + sum over pieces p, in order and each by one fused multiply-add, of
///     (sum_k (step * code[r, k] - zero) x[t, k]) * scale of r in p
/// with pieces of 256 columns of a group, or what is left of it, each a chain of sums of two products by the
/// instruction's rule (to nearest, without subnormals); zeros and minima of groups times the sum of x by themselves.
/// Elsewhere the values of code_matmul() with those activations.
void code_matmul_of_bf16(const float* x, int64_t tokens, std::span<const CodeProduct> products, Executor& executor,
                         Isa isa = best_isa());

}  // namespace crumb::kernels
