// Matrices of floats as they are read from a checkpoint, by several threads, a few rows at a time: the floats of a
// whole matrix never exist beside what is made of them.
#pragma once

#include <span>
#include <variant>

#include "core/common/executor.h"
#include "core/common/half.h"
#include "core/common/large_vector.h"
#include "core/formats/dtype.h"
#include "kernels/bf16.h"
#include "quant/checkpoint.h"

namespace crumb::runtime {

/// In bfloat16 where that holds them all, in float16 where the file has that and it holds them all.
using HeldFloats = std::variant<LargeVector<float>, LargeVector<kernels::Bf16>, LargeVector<Half>>;

formats::DType type_of(const HeldFloats& floats);
/// Room for packed weights of a type, which is that of floats; what a last panel holds beyond the last row is 0.
HeldFloats room_for(formats::DType type, int64_t rows, int64_t cols);
/// As kernels/matmul.h packs weights.
HeldFloats read_packed(const quant::Checkpoint& checkpoint, const quant::StoredTensor& tensor, Executor& executor);
/// The same of weights [rows, cols] that are in memory.
HeldFloats pack(std::span<const float> weights, int64_t rows, int64_t cols);

}  // namespace crumb::runtime
