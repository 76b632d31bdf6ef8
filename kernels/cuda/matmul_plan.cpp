#include "kernels/cuda/matmul_plan.h"

#include <algorithm>

#include "kernels/cuda/matmul_shapes.h"

namespace crumb::kernels {
namespace {

constexpr MatmulRule kTable[] = {
#include "kernels/cuda/matmul_table.inc"
};

constexpr int kMostSplits = 16;
constexpr int64_t kMostGridY = 65535;

int ceil_div(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

int group_of(const PackedShape& shape) { return shape.has_row_scales() ? 0 : static_cast<int>(shape.group_cols); }

const char* obstacle_of(const PackedShape& shape, bool int8, const MatmulDevice& device) {
  if (const char* obstacle = packing_obstacle(shape)) return obstacle;
  const int group = group_of(shape);
  if (group != 0 && group != kTileBlockCols && group != kTileSliceCols) return "the shape is not a packed_shape()";
  if (int8 && group != 0 && !(shape.bits == 2 && group == kTileBlockCols))
    return "with int8 activations there are kernels for a scale a row, and for 2 bits in groups of 128";
  if (device.capability < 80) return "the device is older than compute capability 8.0";
  return nullptr;
}

size_t workspace_bytes(const PackedShape& shape, int64_t tokens, int splits) {
  return splits == 1 ? 0 : static_cast<size_t>(splits) * static_cast<size_t>(tokens * shape.rows) * 4;
}

/// 16 warps, at least two blocks of columns each, and as many blocks a multiprocessor as make up 16 warps: the winners
/// of what was measured (docs/performance.md). More columns than fit are split over blocks.
MatmulPlan plan_skinny(const PackedShape& shape, int64_t tokens, bool int8, const MatmulDevice& device) {
  const int group = group_of(shape), blocks = static_cast<int>(shape.blocks());
  const auto bytes = [&](int warps, int tiles) {
    return skinny_shared(shape.bits, group, static_cast<int>(tokens), int8, warps, tiles).bytes;
  };
  // Fewer warps of at least two blocks rather than more of one, where a block may have little shared memory.
  int most_warps = kSkinnyMostWarps, most = std::max(2, ceil_div(blocks, most_warps));
  while (most_warps > 1 && bytes(most_warps, most) > device.shared_bytes) {
    if (--most >= 2) continue;
    most_warps /= 2, most = std::max(2, ceil_div(blocks, most_warps));
  }
  MatmulPlan plan{.kernel = MatmulKernel::skinny};
  plan.splits = ceil_div(blocks, static_cast<int64_t>(most_warps) * most);
  const int of_split = ceil_div(blocks, plan.splits);
  plan.tiles_a_warp = std::max(2, ceil_div(of_split, most_warps));
  plan.warps = ceil_div(of_split, plan.tiles_a_warp);
  plan.splits = ceil_div(blocks, static_cast<int64_t>(plan.warps) * plan.tiles_a_warp);
  const int a_multiprocessor = std::clamp(static_cast<int>(device.shared_bytes / bytes(plan.warps, plan.tiles_a_warp)),
                                          1, kSkinnyMostWarps / plan.warps);
  plan.blocks = static_cast<int>(
      std::min<int64_t>(shape.row_tiles(), std::max(1, device.multiprocessors * a_multiprocessor / plan.splits)));
  plan.workspace_bytes = workspace_bytes(shape, tokens, plan.splits);
  return plan;
}

MatmulPlan plan_tile(const PackedShape& shape, int64_t tokens, bool int8, const MatmulDevice& device) {
  MatmulPlan plan{.kernel = MatmulKernel::tile};
  plan.tokens_a_block = tokens <= 32 ? 32 : 64;
  const int group = group_of(shape);
  const size_t shared = matmul_shared_bytes(shape.bits, group, plan.tokens_a_block, int8);
  const int a_multiprocessor = std::clamp(static_cast<int>(device.shared_bytes / shared), 1,
                                          matmul_blocks(shape.bits, group, plan.tokens_a_block));
  const int64_t tiles =
      static_cast<int64_t>(ceil_div(shape.rows, matmul_rows(shape.bits, group, plan.tokens_a_block))) *
      ceil_div(tokens, plan.tokens_a_block);
  // As many splits as the multiprocessors take at once, of at least the blocks that the ring of stages holds.
  const int64_t at_once = static_cast<int64_t>(device.multiprocessors) * a_multiprocessor;
  plan.splits = static_cast<int>(
      std::clamp<int64_t>(std::min(at_once / tiles, shape.blocks() / matmul_stages(shape.bits)), 1, kMostSplits));
  plan.workspace_bytes = workspace_bytes(shape, tokens, plan.splits);
  return plan;
}

}  // namespace

MatmulPlan plan_matmul(const PackedShape& shape, int64_t tokens, bool int8, const MatmulDevice& device,
                       MatmulKernel kernel) {
  const char* obstacle = obstacle_of(shape, int8, device);
  if (obstacle == nullptr && tokens < 1) obstacle = "there are no tokens";
  if (obstacle == nullptr && tokens > kMostGridY * 64) obstacle = "there are too many tokens";
  if (obstacle == nullptr && kernel == MatmulKernel::skinny && tokens > kSkinnyMostTokens)
    obstacle = "the kernel for few tokens takes 16";
  if (obstacle == nullptr && kernel == MatmulKernel::tile &&
      matmul_shared_bytes(shape.bits, group_of(shape), tokens <= 32 ? 32 : 64, int8) > device.shared_bytes)
    obstacle = "a block may have too little shared memory on this device";
  if (obstacle != nullptr || kernel == MatmulKernel::none) return {.obstacle = obstacle};
  if (kernel == MatmulKernel::skinny) return plan_skinny(shape, tokens, int8, device);
  if (kernel == MatmulKernel::tile) return plan_tile(shape, tokens, int8, device);
  return {.kernel = kernel};
}

MatmulPlan plan_matmul(const PackedShape& shape, int64_t tokens, bool int8, const MatmulDevice& device) {
  for (const MatmulRule& rule : kTable)
    if (rule.least_capability <= device.capability && (rule.bits == 0 || rule.bits == shape.bits) &&
        rule.int8 == int8 && tokens <= rule.most_tokens)
      return plan_matmul(shape, tokens, int8, device, rule.kernel);
  return {.obstacle = "no line of the table fits"};
}

}  // namespace crumb::kernels
