#include "ptq/gram.h"

#include <algorithm>

namespace crumb::ptq {
namespace {

// Narrower ones save more of the products, and leave matrices whose multiplication is slow.
constexpr int64_t kLeastStrip = 192, kMostStrips = 16;

}  // namespace

GramSum::GramSum(int64_t cols)
    : sum_(torch::zeros({cols, cols})), strip_(std::max(kLeastStrip, (cols + kMostStrips - 1) / kMostStrips)) {}

void GramSum::add(const torch::Tensor& x) {
  const torch::NoGradGuard no_grad;
  const int64_t cols = sum_.size(0);
  for (int64_t begin = 0; begin < cols; begin += strip_) {
    const int64_t end = std::min(begin + strip_, cols);
    sum_.slice(0, begin, end).slice(1, begin).addmm_(x.slice(1, begin, end).t(), x.slice(1, begin));
  }
}

torch::Tensor GramSum::mean(int64_t count) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor upper = sum_.triu();
  return (upper + upper.triu(1).t()).div_(static_cast<double>(count));
}

}  // namespace crumb::ptq
