// What the linears of a decoder are, from the `method:` section of a job.
#pragma once

#include "model/decoder.h"
#include "quant/method_options.h"

namespace crumb::qat {

/// Linears of the method's grid for method.name: qat (excluded names stay float), float linears for none. UserError for
/// grids that cannot be trained, and, when a linear is made, for a group_size that does not divide its rows, with its
/// name.
model::LinearFactory linear_factory(const quant::MethodOptions& method);

/// UserError naming the first linear of `spec` whose rows group_size does not divide: tells before weights are read.
void check_group_size(const quant::MethodOptions& method, const arch::DecoderSpec& spec);

}  // namespace crumb::qat
