#include "kernels/cuda/matmul.h"

#include <cuda_runtime_api.h>

#include "core/common/error.h"
#include "kernels/cuda/matmul_kernels.h"

namespace crumb::kernels {

void launch_kernel(void (*kernel)(MatmulArgs), const MatmulArgs& args, dim3 grid, unsigned threads, size_t shared,
                   bool overlaps, CudaStream stream, const char* what) {
  constexpr size_t kWithoutOptIn = 48 * 1024;
  const auto* function = reinterpret_cast<const void*>(kernel);
  if (shared > kWithoutOptIn)
    cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = overlaps ? 1 : 0;
  MatmulArgs copy = args;
  void* arguments[] = {&copy};
  cudaLaunchKernelExC(&config, function, arguments);  // an error stays until check_launch()
  check_launch(what);
}

void packed_matmul(const PackedProduct& product, const MatmulPlan& plan, CudaStream stream) {
  const PackedShape& shape = product.matrix.shape;
  const bool int8 = product.int8 != nullptr;
  CRUMB_ASSERT(plan.kernel == MatmulKernel::skinny || plan.kernel == MatmulKernel::tile);
  CRUMB_ASSERT(int8 == (product.x == nullptr) && (product.y == nullptr) != (product.y_bf16 == nullptr));
  CRUMB_ASSERT(plan.workspace_bytes == 0 || product.workspace != nullptr);
  CRUMB_ASSERT(reinterpret_cast<uintptr_t>(product.matrix.codes) % 16 == 0);
  if (product.tokens == 0) return;
  const int64_t blocks = shape.blocks();
  MatmulArgs args{};
  args.tiles = product.matrix.codes;
  args.scales = product.matrix.scales;
  args.x = product.x;
  args.x_stride = product.x_stride;
  args.x_is_aligned = product.x_stride % 8 == 0 && reinterpret_cast<uintptr_t>(product.x) % 16 == 0;
  if (int8) {
    args.x = product.int8->codes;
    args.x_stride = blocks * kTileBlockCols;
    args.token_scales = product.int8->scales;
    args.token_sums = product.int8->sums;
    args.block_sums = product.int8->block_sums;
  }
  args.bias = product.bias;
  args.y_is_bf16 = product.y == nullptr;
  args.y = args.y_is_bf16 ? static_cast<void*>(product.y_bf16) : product.y;
  args.workspace = product.workspace;
  args.rows = static_cast<int32_t>(shape.rows);
  args.cols = static_cast<int32_t>(shape.cols);
  args.blocks = static_cast<int32_t>(blocks);
  args.groups = static_cast<int32_t>(shape.groups());
  args.tokens = static_cast<int32_t>(product.tokens);
  args.step = shape.step;
  args.zero = shape.zero;
  args.splits = plan.splits;
  args.tiles_a_warp = plan.tiles_a_warp;

  const int group = shape.has_row_scales() ? 0 : static_cast<int>(shape.group_cols);
  const bool found =
      plan.kernel == MatmulKernel::skinny
          ? launch_skinny_matmul(
                shape.bits, group, int8, args,
                {static_cast<unsigned>(plan.blocks), static_cast<unsigned>(plan.warps), product.weights_are_ready},
                stream)
          : launch_tile_matmul(shape.bits, group, int8, args,
                               {static_cast<unsigned>(plan.tokens_a_block), product.weights_are_ready}, stream);
  CRUMB_ASSERT(found);
  if (plan.splits > 1) launch_add_splits(int8 && group == 0, group == 0, args, stream);
}

}  // namespace crumb::kernels
