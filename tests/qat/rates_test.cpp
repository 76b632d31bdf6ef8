#include "qat/rates.h"

#include <gtest/gtest.h>

namespace crumb::qat {
namespace {

double auto_rate(const RateFacts& facts) {
  train::OptimizerOptions optimizer;
  resolve_rates(optimizer, facts);
  return *optimizer.lr.value;
}

TEST(Rates, OfAQuantizedModelAreSharesOfItsMedianScale) {
  EXPECT_DOUBLE_EQ(auto_rate({.median_scale = 0.05, .batch_tokens = 512}), 0.006 * 0.05);
  EXPECT_DOUBLE_EQ(auto_rate({.median_scale = 0.05, .batch_tokens = 65536}), 0.006 * 0.05);
}

TEST(Rates, OfACalibratedStartGrowWithTheRootOfAStepsTokensUpToALimit) {
  const auto rate = [](int64_t tokens) {
    return auto_rate({.median_scale = 0.05, .is_calibrated = true, .batch_tokens = tokens});
  };
  EXPECT_DOUBLE_EQ(rate(512), 0.0006 * 0.05);
  EXPECT_DOUBLE_EQ(rate(2048), 0.0012 * 0.05);
  EXPECT_DOUBLE_EQ(rate(8192), 0.002 * 0.05);
  train::OptimizerOptions given;
  given.lr = 1e-3;
  resolve_rates(given, {.median_scale = 0.05, .is_calibrated = true, .batch_tokens = 512});
  EXPECT_EQ(*given.lr.value, 1e-3);
  EXPECT_EQ(*given.scale_lr.value, 5e-4);
}

TEST(Rates, WithoutQuantizationDependOnTheWidth) {
  EXPECT_DOUBLE_EQ(auto_rate({.is_random = true, .hidden_size = 2048, .batch_tokens = 512}), 0.5e-3);
  EXPECT_DOUBLE_EQ(auto_rate({.hidden_size = 512, .batch_tokens = 512}), 1e-3 / 20);
}

}  // namespace
}  // namespace crumb::qat
