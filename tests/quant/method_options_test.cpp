#include "quant/method_options.h"

#include <gtest/gtest.h>

#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

TEST(MatchesAny, BareWordsMatchOneWholeComponent) {
  const std::string name = "model.layers.10.mlp.down_proj";
  EXPECT_TRUE(matches_any(name, {"down_proj"}));
  EXPECT_TRUE(matches_any(name, {"nothing", "10"}));
  EXPECT_FALSE(matches_any(name, {"down"}));
  EXPECT_FALSE(matches_any(name, {"1"}));
  EXPECT_FALSE(matches_any(name, {}));
  EXPECT_FALSE(matches_any(name, {""}));
}

TEST(MatchesAny, GlobsCoverTheFullName) {
  const std::string name = "model.layers.10.mlp.down_proj";
  EXPECT_TRUE(matches_any(name, {"*down_proj"}));
  EXPECT_TRUE(matches_any(name, {"model.layers.1?.*"}));
  EXPECT_TRUE(matches_any(name, {"model.layers.10.mlp.down_proj"}));
  EXPECT_TRUE(matches_any(name, {"*.10.*_proj*"}));
  EXPECT_FALSE(matches_any(name, {"layers.10.*"})) << "a pattern with a dot is not a part of a name";
  EXPECT_FALSE(matches_any(name, {"model.layers.?.*"}));
  EXPECT_FALSE(matches_any(name, {"*up_proj"}));
}

TEST(MethodOptions, FormatOfTheDefaults) { EXPECT_EQ(MethodOptions{}.format(), QuantFormat{}); }

TEST(MethodOptions, CombinationsThatDoNotExistAreNamed) {
  const auto error = [](const MethodOptions& options) { return testing::error_of([&] { options.format(); }); };
  EXPECT_EQ(error({.grid = "seq", .bits = 4}), "method.bits: grid seq has 2 bits, got 4; grid int has 2 to 8");
  EXPECT_EQ(error({.symmetric = false}), "method.symmetric: grid seq is symmetric; false is for grid int");
  EXPECT_EQ(error({.grid = "int", .bits = 4, .init = "absmean"}),
            "method.init: absmean is for grid seq; grid int knows absmax and mse");
}

TEST(MethodOptions, GroupSizeThatDoesNotDivideNamesTheLinear) {
  check_group_size(0, 172, "a");
  check_group_size(43, 172, "a");
  EXPECT_EQ(testing::error_of([] { check_group_size(100, 172, "model.layers.0.mlp.down_proj"); }),
            "method.group_size: 100 does not divide 172, the input size of model.layers.0.mlp.down_proj");
}

TEST(MethodOptions, OnlyLinearsThatAreNotExcludedAreQuantized) {
  arch::TensorDesc desc;
  desc.hf_name = "model.layers.0.mlp.up_proj.weight";
  EXPECT_TRUE(is_quantized(desc, {}));
  EXPECT_FALSE(is_quantized(desc, {.exclude = {"up_proj"}}));
  desc.role = arch::TensorRole::embedding;
  EXPECT_FALSE(is_quantized(desc, {.exclude = {}}));
}

}  // namespace
}  // namespace crumb::quant
