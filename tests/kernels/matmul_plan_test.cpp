#include "kernels/cuda/matmul_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "kernels/cuda/matmul_shapes.h"

namespace crumb::kernels {
namespace {

const MatmulDevice kDevices[] = {{80, 108, 166912}, {86, 84, 101376}, {89, 128, 101376}, {90, 132, 232448}};

PackedShape shape_of(int bits, int64_t rows, int64_t cols, int64_t group_cols) {
  return {bits, rows, cols, group_cols, bits == 2 ? 2 : 1, bits == 2 ? 3 : 1 << (bits - 1)};
}

/// Every column once, and within what a block may have.
void check(const PackedShape& shape, int64_t tokens, bool int8, const MatmulDevice& device) {
  SCOPED_TRACE(testing::Message() << shape.bits << " bits, " << shape.rows << " x " << shape.cols << " by "
                                  << shape.group_cols << ", " << tokens << " tokens, int8 " << int8 << ", device "
                                  << device.capability);
  const MatmulPlan plan = plan_matmul(shape, tokens, int8, device);
  ASSERT_EQ(plan.obstacle, nullptr) << plan.obstacle;
  ASSERT_NE(plan.kernel, MatmulKernel::none);
  const int group = shape.has_row_scales() ? 0 : static_cast<int>(shape.group_cols);
  if (plan.kernel == MatmulKernel::skinny) {
    EXPECT_LE(plan.warps, kSkinnyMostWarps);
    EXPECT_GE(plan.blocks, 1);
    EXPECT_LE(plan.blocks, shape.row_tiles());
    const int64_t a_split = static_cast<int64_t>(plan.warps) * plan.tiles_a_warp;
    EXPECT_GE(a_split * plan.splits, shape.blocks());
    EXPECT_LT(a_split * (plan.splits - 1), shape.blocks()) << "a split without columns";
    EXPECT_LE(skinny_shared(shape.bits, group, static_cast<int>(tokens), int8, plan.warps, plan.tiles_a_warp).bytes,
              device.shared_bytes);
  } else if (plan.kernel == MatmulKernel::tile) {
    EXPECT_TRUE(plan.tokens_a_block == 32 || plan.tokens_a_block == 64);
    EXPECT_GE(plan.splits, 1);
    EXPECT_LE(plan.splits, shape.blocks());
    EXPECT_LE(matmul_shared_bytes(shape.bits, group, plan.tokens_a_block, int8), device.shared_bytes);
  }
  const auto sums = static_cast<size_t>(plan.splits) * static_cast<size_t>(tokens * shape.rows) * 4;
  EXPECT_EQ(plan.workspace_bytes, plan.splits > 1 ? sums : 0);
}

TEST(MatmulPlan, EveryShapeOnEveryDevice) {
  for (const auto& device : kDevices)
    for (const int bits : {2, 4, 8})
      for (const int64_t rows : {1, 16, 576, 3072, 28672})
        for (const int64_t cols : {1, 128, 172, 576, 2048, 6144, 8192, 14336, 28672, 65536})
          for (const int64_t tokens : {1, 8, 9, 16, 17, 33, 256, 257, 4096})
            for (const bool int8 : {false, true}) check(shape_of(bits, rows, cols, cols), tokens, int8, device);
}

TEST(MatmulPlan, Groups) {
  for (const auto& device : kDevices)
    for (const int64_t tokens : {1, 16, 100}) {
      check(shape_of(2, 4096, 14336, 128), tokens, false, device);
      check(shape_of(2, 4096, 14336, 128), tokens, true, device);
      check(shape_of(4, 4096, 14336, 128), tokens, false, device);
      check(shape_of(4, 4096, 14336, 32), tokens, false, device);
      EXPECT_NE(plan_matmul(shape_of(4, 4096, 14336, 32), tokens, true, device).obstacle, nullptr);
    }
}

TEST(MatmulPlan, TheTableChooses) {
  const PackedShape shape = shape_of(2, 4096, 4096, 4096);
  const MatmulDevice& h100 = kDevices[3];
  EXPECT_EQ(plan_matmul(shape, 16, false, h100).kernel, MatmulKernel::skinny);
  EXPECT_EQ(plan_matmul(shape, 17, false, h100).kernel, MatmulKernel::tile);
  EXPECT_EQ(plan_matmul(shape, 256, false, h100).kernel, MatmulKernel::tile);
  EXPECT_EQ(plan_matmul(shape, 257, false, h100).kernel, MatmulKernel::dequantize);
  EXPECT_EQ(plan_matmul(shape, 513, true, h100).kernel, MatmulKernel::tile);
}

// What was fastest where it was measured: 28672 x 4096, 2048 x 6144, 8192 x 8192, 12288 x 2048, 4096 x 14336.
TEST(MatmulPlan, MeasuredWinners) {
  const MatmulDevice& h100 = kDevices[3];
  const auto facts = [&](int64_t rows, int64_t cols, int64_t tokens = 1) {
    const MatmulPlan plan = plan_matmul(shape_of(2, rows, cols, cols), tokens, false, h100);
    return std::array{plan.warps, plan.tiles_a_warp, plan.blocks, plan.splits};
  };
  EXPECT_EQ(facts(28672, 4096), (std::array{16, 2, 132, 1}));
  EXPECT_EQ(facts(2048, 6144), (std::array{16, 3, 128, 1}));
  EXPECT_EQ(facts(8192, 8192), (std::array{16, 4, 132, 1}));
  EXPECT_EQ(facts(12288, 2048), (std::array{8, 2, 264, 1}));
  EXPECT_EQ(facts(4096, 14336), (std::array{16, 7, 132, 1}));
  EXPECT_EQ(facts(4096, 14336, 8), (std::array{14, 4, 66, 2}));
  EXPECT_EQ(facts(28672, 4096, 16), (std::array{16, 2, 132, 1}));
}

TEST(MatmulPlan, SaysWhyNot) {
  const PackedShape shape = shape_of(2, 64, 256, 256);
  EXPECT_STREQ(plan_matmul(shape, 0, false, kDevices[0]).obstacle, "there are no tokens");
  EXPECT_NE(plan_matmul(shape, 1, false, {75, 72, 65536}).obstacle, nullptr);
  EXPECT_NE(plan_matmul(shape, 17, false, kDevices[0], MatmulKernel::skinny).obstacle, nullptr);
  EXPECT_NE(plan_matmul(shape_of(5, 64, 256, 256), 1, false, kDevices[0]).obstacle, nullptr);
  EXPECT_NE(plan_matmul(shape_of(4, 64, 256, 64), 1, false, kDevices[0]).obstacle, nullptr) << "not a packed_shape()";
}

}  // namespace
}  // namespace crumb::kernels
