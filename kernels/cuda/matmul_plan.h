// Which kernel computes a product with packed weights on a device: plain C++, decided by shape and device alone from
// the table in matmul_table.inc, which a tuner may write.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed_tiles.h"

namespace crumb::kernels {

/// What cudaDeviceProp says.
struct MatmulDevice {
  int capability = 90;  // 10 * major + minor: 80, 86, 89, 90
  int multiprocessors = 132;
  size_t shared_bytes = 232448;  // a block may have, opted in
};

enum class MatmulKernel {
  none,        // no kernel takes this; `obstacle` says why
  skinny,      // up to 16 tokens
  tile,        // tensor cores, codes decoded as they come
  dequantize,  // dequantize() once, and a product of bfloat16 by the caller
};

struct MatmulPlan {
  MatmulKernel kernel = MatmulKernel::none;
  const char* obstacle = nullptr;
  int blocks = 0, warps = 0, tiles_a_warp = 0;  // skinny: blocks that share the row tiles
  int tokens_a_block = 0;                       // tile
  int splits = 1;                               // of the columns
  size_t workspace_bytes = 0;
};

/// A line of the table: the first that fits is taken.
struct MatmulRule {
  int least_capability;
  int bits;  // 0: any
  bool int8;
  int64_t most_tokens;
  MatmulKernel kernel;
};

/// tokens >= 1. int8: activations in int8. The plan of `none` has an obstacle.
MatmulPlan plan_matmul(const PackedShape& shape, int64_t tokens, bool int8, const MatmulDevice& device);
/// The same with this kernel, whatever the table says: what a tuner measures.
MatmulPlan plan_matmul(const PackedShape& shape, int64_t tokens, bool int8, const MatmulDevice& device,
                       MatmulKernel kernel);

}  // namespace crumb::kernels
