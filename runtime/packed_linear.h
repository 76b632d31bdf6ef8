// Linears of codes and scales that stay codes in memory (kernels/code_matmul.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/common/executor.h"
#include "runtime/linear.h"

namespace crumb::runtime {

/// What packed linears multiply their codes with. `floats`: the input as it is; their outputs are those of dense floats
/// to the last bit. `int8`: the input rounded as quant/activations.h says, but with a scale for 64 columns of a token
/// where that fits the matrix; sums in int32.
enum class Activations { floats, int8 };
/// "float" and "int8"; UserError that begins with `where`.
Activations activations_from_name(const std::string& name, const std::string& where);
std::vector<std::string> activations_names();

/// Takes quantized matrices whose grid has equal steps and whose groups of columns are multiples of 16 (or rows);
/// others are left to the dense floats. Orders their codes anew on the executor's threads. A model that rounds
/// activations of its quantized linears itself goes on to do so; with `int8`, UserError unless that is int8.
LinearMaker packed_linears(Activations activations, std::shared_ptr<Executor> executor);

}  // namespace crumb::runtime
