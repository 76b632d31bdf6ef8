// Every tensor type a GGUF file may hold: name and size, also of those without a codec. Some ids mean different types
// in different files: 40 is NVFP4 in ggml, Q2_0C in llama.cpp pull request 19357 and STQ1_0 in a fork; 41 is Q1_0 or
// Q2_0C; 42 is Q2_0 or STQ1_0.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/formats/codec.h"

namespace crumb::formats {

struct GgmlType {
  std::string_view name;  // "q4_k"
  int64_t block_size, block_bytes;
  std::optional<TensorType> codec;  // none: Crumb cannot decode it

  /// Bytes of `elements` weights in rows of `cols`; nothing if a row is not a whole number of blocks.
  std::optional<int64_t> bytes(int64_t elements, int64_t cols) const;
};

/// Name and size of a type that Crumb reads.
const GgmlType& ggml_type(TensorType type);

/// What an id may mean, the most usual meaning first; empty for an id nobody uses.
std::span<const GgmlType> ggml_type_readings(uint32_t id);

}  // namespace crumb::formats
