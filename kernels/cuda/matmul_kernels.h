// How the host code of the packed products starts its kernels; for kernels/cuda/*.cpp and *.cu only.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/matmul_args.h"
#include "kernels/cuda/stream.h"

namespace crumb::kernels {

/// Bits, columns of a group (0: a scale a row), int8 activations: the forms that have kernels.
#define CRUMB_MATMUL_FORMS(FORM) \
  FORM(2, 0, false)              \
  FORM(2, 128, false)            \
  FORM(4, 0, false)              \
  FORM(4, 128, false)            \
  FORM(4, 32, false)             \
  FORM(8, 0, false)              \
  FORM(2, 0, true)               \
  FORM(2, 128, true)             \
  FORM(4, 0, true)               \
  FORM(8, 0, true)

struct SkinnyGrid {
  unsigned blocks, warps;  // blocks that share the row tiles, warps of each
  bool overlaps;           // may begin before the kernel before it in the stream has ended
};
struct TileGrid {
  unsigned tokens;  // of a block: 32 or 64
  bool overlaps;
};

/// False where the form has no kernel.
bool launch_skinny_matmul(int bits, int group, bool int8, const MatmulArgs& args, const SkinnyGrid& grid,
                          CudaStream stream);
bool launch_tile_matmul(int bits, int group, bool int8, const MatmulArgs& args, const TileGrid& grid,
                        CudaStream stream);
/// Adds the splits of the workspace in their order: sums are int32 with int8 activations and row scales.
void launch_add_splits(bool int_sums, bool has_row_scales, const MatmulArgs& args, CudaStream stream);

/// RunError where CUDA refuses.
void launch_kernel(void (*kernel)(MatmulArgs), const MatmulArgs& args, dim3 grid, unsigned threads, size_t shared,
                   bool overlaps, CudaStream stream, const char* what);

}  // namespace crumb::kernels
