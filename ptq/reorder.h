// The order of the channels between two linears, fused into both: a permutation of the rows of v, or of gate and up,
// and of the columns of o or down that read them leaves what a block computes as it is. With channels in the order of
// their energy a group of columns holds channels of like energy, and GPTQ rounds its groups as `desc_act` of GPTQ's
// authors has them (IST-DASLab/gptq), while the file stays a file of ordinary groups: nothing has to look up the group
// of a column.
//
//   down   rows and biases of gate and up, in any order
//   o      rows and bias of v, within a kv head; its query heads share the order
//
// q, k, v, gate and up read the residual stream, whose one order all layers share: theirs stays.
#pragma once

#include <memory>

#include "ptq/block_walk.h"

namespace crumb::ptq {

/// Orders the channels of each block by what the quantized blocks before it give, then goes on with `rounding`. Linears
/// that stay in floats, or whose inputs come from one, keep their order.
std::shared_ptr<BlockMethod> make_reordered(std::shared_ptr<const BlockMethod> rounding);

}  // namespace crumb::ptq
