#include "runtime/attention.h"

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "kernels/vector8.h"

namespace crumb::runtime {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Stride = Eigen::OuterStride<>;

constexpr int64_t kQueriesPerItem = 64;

using kernels::for_each8;
using kernels::Vec8;

/// row[begin, end) = softmax(scale * row[begin, end)), zero elsewhere in [0, size). The sum has a fixed order (Eigen's
/// depends on where the row lies in memory).
void masked_softmax(float* row, int64_t size, int64_t begin, int64_t end, float scale) {
  float* visible = row + begin;
  const int64_t n = end - begin;
  const float largest = *std::max_element(visible, visible + n);
  Vec8 sums = kernels::broadcast(0.0f);
  for_each8(n, [&](int64_t i, int64_t count) {
    // Lanes beyond the row get e^-87, which vanishes beside the largest's e^0.
    const Vec8 e = kernels::exp((kernels::load(visible + i, count, -INFINITY) - largest) * scale);
    sums += e;
    kernels::store(visible + i, e, count);
  });
  const float inverse = 1.0f / kernels::sum(sums);
  for (int64_t i = 0; i < n; ++i) visible[i] *= inverse;
  std::fill(row, visible, 0.0f);
  std::fill(visible + n, row + size, 0.0f);
}

void attend_item(const AttentionItem& item, int64_t layer, const arch::LayerSpec& spec, const float* q, float* out,
                 RowMajor& scores) {
  const auto& gqa = spec.gqa();
  const auto& part = item.segment;
  const int64_t dim = gqa.head_dim, row = gqa.heads * dim, kv_head = item.head / (gqa.heads / gqa.kv_heads);
  const auto first_key = [&](int64_t position) {
    return spec.window > 0 ? std::max<int64_t>(0, position - spec.window + 1) : 0;
  };
  const int64_t begin = first_key(part.position), num_keys = part.position + part.count - begin;
  const int64_t offset = part.first * row + item.head * dim;
  const Eigen::Map<const RowMajor, 0, Stride> queries(q + offset, part.count, dim, Stride(row));
  const Eigen::Map<const RowMajor> keys(part.cache->keys(layer, kv_head) + begin * dim, num_keys, dim);
  const Eigen::Map<const RowMajor> values(part.cache->values(layer, kv_head) + begin * dim, num_keys, dim);
  Eigen::Map<RowMajor, 0, Stride> result(out + offset, part.count, dim, Stride(row));

  scores.resize(part.count, num_keys);
  scores.noalias() = queries * keys.transpose();
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (int64_t i = 0; i < part.count; ++i) {
    const int64_t position = part.position + i;
    masked_softmax(scores.data() + i * num_keys, num_keys, first_key(position) - begin, position + 1 - begin, scale);
  }
  result.noalias() = scores * values;
}

}  // namespace

std::vector<AttentionItem> attention_items(const std::vector<Segment>& segments, int64_t heads) {
  std::vector<AttentionItem> items;
  for (const auto& segment : segments) {
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t begin = 0; begin < segment.count; begin += kQueriesPerItem) {
        const int64_t count = std::min(kQueriesPerItem, segment.count - begin);
        items.push_back({{segment.cache, segment.first + begin, count, segment.position + begin}, head});
      }
    }
  }
  return items;
}

void attend(const std::vector<AttentionItem>& items, int64_t layer, const arch::LayerSpec& spec, const float* q,
            float* out, const ParallelFor& parallel_for) {
  parallel_for(static_cast<int64_t>(items.size()), 2, [&](int64_t begin, int64_t end) {
    RowMajor scores;
    for (int64_t i = begin; i < end; ++i) attend_item(items[static_cast<size_t>(i)], layer, spec, q, out, scores);
  });
}

}  // namespace crumb::runtime
