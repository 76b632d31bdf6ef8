#include "ptq/gram.h"

#include <gtest/gtest.h>

namespace crumb::ptq {
namespace {

TEST(GramSum, IsTheMeanOfTheProductsOfAllColumnsWhateverTheirNumber) {
  torch::manual_seed(1);
  for (const int64_t cols : {1, 64, 172, 192, 193, 576, 1000, 4001}) {
    GramSum sum(cols);
    std::vector<torch::Tensor> batches = {torch::randn({33, cols}), torch::randn({7, cols})};
    for (const auto& x : batches) sum.add(x);
    const torch::Tensor gram = sum.mean(40), x = torch::cat(batches).to(torch::kFloat64);
    EXPECT_TRUE(torch::equal(gram, gram.t())) << cols;
    // 40 products of normal numbers, each rounded to 2^-24 of the sum so far
    EXPECT_TRUE(torch::allclose(gram.to(torch::kFloat64), x.t().mm(x) / 40, 0, 2e-6)) << cols;
  }
}

}  // namespace
}  // namespace crumb::ptq
