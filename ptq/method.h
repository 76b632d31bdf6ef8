// What a method of `crumb quantize` is: one that looks at rows alone, or one that sees what the layers read.
#pragma once

#include <memory>
#include <variant>

#include "ptq/row_walk.h"

namespace crumb::ptq {

class BlockMethod;  // ptq/block_walk.h, which includes Torch

/// What make() of a method's options gives.
using Method = std::variant<std::unique_ptr<RowMethod>, std::shared_ptr<BlockMethod>>;

}  // namespace crumb::ptq
