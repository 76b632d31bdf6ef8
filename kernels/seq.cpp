#include "kernels/seq.h"

#include <algorithm>

#include "core/common/error.h"
#include "kernels/isa/table.h"

namespace crumb::kernels {

namespace portable {
namespace {

constexpr int kLanes = 8;

float join(const float* lane) {
  return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

}  // namespace

void seq_forward(const SeqGroup& group, float* y, uint8_t* codes) {
  const auto [w, s, n] = group;
  for (int64_t i = 0; i < n; ++i) {
    if (codes != nullptr) codes[i] = static_cast<uint8_t>(seq_code(w[i], s));
    if (y != nullptr) y[i] = seq_nearest_level(w[i], s);
  }
}

float seq_backward(const SeqGroup& group, const float* grad_y, OutsideGradient outside, float* grad_w) {
  const auto [w, s, n] = group;
  const float range = kSeqRange * s;
  double total = 0;
  for (int64_t block = 0; block < n; block += kSumBlock) {
    float lane[kLanes] = {};
    const int64_t end = std::min(block + kSumBlock, n);
    for (int64_t i = block; i < end; ++i) {
      const float g = grad_y[i], level = seq_nearest_level(w[i], s);
      const bool inside = std::fabs(w[i]) <= range;
      lane[i % kLanes] = std::fma(g, inside ? level - w[i] : level, lane[i % kLanes]);
      grad_w[i] = inside || outside == OutsideGradient::ste ? g : 0.0f;
    }
    total += join(lane);
  }
  return static_cast<float>(total);
}

}  // namespace portable

namespace {

constexpr int64_t kWeightsPerTask = 1 << 15;

/// Calls body(index, begin) for every group: its number and its first weight.
template <class Body>
void for_each_group(int64_t rows, int64_t cols, int64_t group_size, Executor& executor, const Body& body) {
  CRUMB_ASSERT(group_size > 0 && cols % group_size == 0);
  const int64_t groups = cols / group_size;
  executor.run(rows, std::max<int64_t>(1, kWeightsPerTask / cols), [&](int64_t first_row, int64_t last_row, int) {
    for (int64_t group = first_row * groups; group < last_row * groups; ++group) body(group, group * group_size);
  });
}

}  // namespace

void seq_forward(const float* w, const float* scale, int64_t rows, int64_t cols, int64_t group_size, float* y,
                 uint8_t* codes, Executor& executor, Isa isa) {
  const auto forward = kernel_table(isa).seq_forward;
  for_each_group(rows, cols, group_size, executor, [&](int64_t group, int64_t begin) {
    forward({w + begin, round_scale(scale[group]), group_size}, y == nullptr ? nullptr : y + begin,
            codes == nullptr ? nullptr : codes + begin);
  });
}

void seq_backward(const float* w, const float* scale, const float* grad_y, int64_t rows, int64_t cols,
                  int64_t group_size, OutsideGradient outside, float* grad_w, float* grad_log_scale, Executor& executor,
                  Isa isa) {
  const auto backward = kernel_table(isa).seq_backward;
  for_each_group(rows, cols, group_size, executor, [&](int64_t group, int64_t begin) {
    grad_log_scale[group] =
        backward({w + begin, round_scale(scale[group]), group_size}, grad_y + begin, outside, grad_w + begin);
  });
}

}  // namespace crumb::kernels
