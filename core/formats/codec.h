// Tensor types of GGUF: sizes, decoders, encoders. Works on rows; a row is a whole number of blocks.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace crumb::formats {

/// Types Crumb reads; the first line it writes too. The value is not ggml's id: 40 and 41 mean different types in
/// different files (see gguf.h).
enum class TensorType {
  // clang-format off
  f32, f16, bf16, q8_0, q4_0, q6_k, q2_k, q2_0c,
  q4_1, q5_0, q5_1, q3_k, q4_k, q5_k, iq4_nl, iq4_xs, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m,
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
/// Encodes one row as ggml does (Q4_0, Q8_0, BF16, F16 bit for bit; Q6_K by a scale search no worse in squared error).
/// Throws UserError for Q2_K and Q2_0C, which are written from codes and scales only, and for the types only read.
void encode_row(TensorType type, const float* values, int64_t cols, void* out);

/// SEQ rows from codes 0..3 and scales (level = (code - 1.5) * scale), without rounding: the scale must have at most 6
/// significant bits. codes: one byte each, `cols` of them; scales: cols / group_size of them. Types: q2_0c (one scale a
/// row), q2_k (group_size a multiple of 256), q4_0, q8_0 (a multiple of 32), bf16, f16, f32.
void encode_seq_row(TensorType type, const uint8_t* codes, const float* scales, int64_t cols, int64_t group_size,
                    void* out);
/// Symmetric integers: value = (code - zero_point) * scale with zero_point = 2^(bits-1). q4_0 holds 4 bits, q8_0 up to
/// 8 (code 0 of 8 bits is -128), bf16 and f32 too when exact.
void encode_int_row(TensorType type, const uint8_t* codes, const float* scales, int64_t cols, int64_t group_size,
                    int bits, void* out);

}  // namespace crumb::formats
