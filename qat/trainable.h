// Which methods can be trained; told without Torch.
#pragma once

#include "quant/method_options.h"

namespace crumb::qat {

/// UserError for a grid that has no QuantLinear, and for a combination that does not exist.
void check_trainable(const quant::MethodOptions& method);

}  // namespace crumb::qat
