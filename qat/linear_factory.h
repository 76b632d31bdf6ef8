// What the linears of a decoder are, from the `method:` section of a job.
#pragma once

#include "model/decoder.h"
#include "qat/method.h"

namespace crumb::qat {

/// Quantized linears in their formats, excluded ones in float. UserError for what cannot be trained, and, when a linear
/// is made, for a group_size that does not divide its rows, with its name.
model::LinearFactory linear_factory(const QatMethod& method);

}  // namespace crumb::qat
