// Linears of codes and scales that stay codes in memory (kernels/code_matmul.h).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/common/executor.h"
#include "quant/checkpoint.h"
#include "runtime/linear.h"
#include "runtime/weight_pool.h"

namespace crumb::runtime {

/// What packed linears multiply their codes with. `floats`: the input as it is; their outputs are those of dense floats
/// to the last bit. `int8`: the input rounded as quant/activations.h says, but with a scale for 64 columns of a token
/// where that fits the matrix; sums in int32.
/// `bf16`: the input rounded to bfloat16. With `int8` and `bf16`, linears that are no codes but bfloat16 read bfloat16,
/// too, in models that have codes; in others only with `bf16`.
/// `automatic`: int8 where a model has linears for it and does not say otherwise itself, else floats.
enum class Activations { automatic, floats, bf16, int8 };
/// "auto", "float", "bf16" and "int8"; UserError that begins with `where`.
Activations activations_from_name(const std::string& name, const std::string& where);
std::string_view name_of(Activations activations);
/// What `automatic` is for a model; `floats`, with a warning, for `int8` where it has no quantized linears; others are
/// what they are.
Activations resolved(Activations activations, const quant::Checkpoint& checkpoint);

/// Takes quantized matrices that can be held as codes (held_form() of runtime/held_codes.h): all block types of GGUF,
/// grids with equal steps in groups of multiples of 16 columns (or rows); others are left to the dense floats. With
/// `int8`, members in groups of different sizes are not taken together. Orders codes anew on the executor's threads. A
/// model that rounds activations of its quantized linears itself goes on to do so; with `int8`, UserError unless that
/// is int8. `activations` is resolved(). `stores`: of the codes.
LinearMaker packed_linears(Activations activations, std::shared_ptr<Executor> executor, WeightStores stores = {});

}  // namespace crumb::runtime
