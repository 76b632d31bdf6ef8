// kernels/code_matmul.h in plain loops: the oracle, and the path of instruction sets without a kernel of their own.
#pragma once

#include "kernels/code_matmul.h"

namespace crumb::kernels::portable {

/// Panels [begin, end).
void code_matmul(const Int8Tokens& x, const CodeProduct& product, int64_t begin, int64_t end);
/// out [cols]
void dequantize_row(const CodeMatrix& matrix, int64_t row, float* out);

}  // namespace crumb::kernels::portable
