// Tensor types of GGUF: sizes, decoders, encoders. Works on rows; a row is a whole number of blocks.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace crumb::formats {

/// Types Crumb reads; the first line it writes too. The value is not ggml's id: 40 and 41 mean different types in
/// different files (see gguf.h).
enum class TensorType {
  // clang-format off
  f32, f16, bf16, q8_0, q4_0, q4_1, q6_k, q2_k, q2_0c,
  q5_0, q5_1, q3_k, q4_k, q5_k, iq4_nl, iq4_xs, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m,
  tq1_0, tq2_0, mxfp4, nvfp4,
  // clang-format on
};

std::string_view type_name(TensorType type);  // "q2_k"
std::optional<TensorType> type_from_name(std::string_view name);
uint32_t ggml_type_id(TensorType type);  // as written; Q2_0C is 40
int64_t block_size(TensorType type);     // weights a block: 1, 32, 64, 256, 512
int64_t block_bytes(TensorType type);
/// cols must be a multiple of block_size(type).
int64_t row_bytes(TensorType type, int64_t cols);

/// Decodes `cols` weights of one row, as the gguf package does bit for bit (Q2_0C, which it does not know, apart).
void decode_row(TensorType type, const void* data, int64_t cols, float* out);
/// Encodes one row as ggml does (Q4_0, Q4_1, Q8_0, BF16, F16 bit for bit; Q6_K by a scale search no worse in squared
/// error). Throws UserError for Q2_K and Q2_0C, which are written from codes and scales only, and for the types only
/// read.
void encode_row(TensorType type, const float* values, int64_t cols, void* out);

/// How a block type holds levels (those at scale 1, of codes 0, 1, ...): as the integers level * factor with the scale
/// d = s / factor. q4_0: -8..7, q8_0: -128..127; q4_1, where the first level becomes the minimum: those at most 15
/// above it; q2_k and q2_0c only the levels of SEQ (-1.5, -0.5, 0.5, 1.5). Nothing where it does not, and for every
/// other type.
std::optional<int> level_factor(TensorType type, std::span<const float> levels);

/// One row from codes and scales, value = level of the code * scale, without rounding: UserError for a scale or a level
/// the type does not hold exactly. codes: one byte each, `cols` of them; scales: cols / group_size of them. Types: f32,
/// f16, bf16, and those with a level_factor(): q2_0c (one scale a row), q2_k (group_size a multiple of 256), q4_0,
/// q4_1, q8_0 (a multiple of 32). q4_1 alone takes minima, as many as scales, which are added to the values.
void encode_codes_row(TensorType type, const uint8_t* codes, std::span<const float> levels, const float* scales,
                      int64_t cols, int64_t group_size, void* out, const float* minima = nullptr);

}  // namespace crumb::formats
